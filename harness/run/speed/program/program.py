"""The program of a victim: its logits and the gradient of its loss, computed without Python modules or autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from epsbench.harness.run.attack.gradient import input_gradient
from epsbench.harness.run.speed.program.forward import rewrite_forward
from epsbench.harness.run.speed.program.packing import pack
from epsbench.harness.run.speed.program.tracing import trace, values


class Program:
    """`epsbench.harness.run.attack.gradient.input_gradient` of one network, for images (N, C, H, W) and labels (N,).

    N is 2 or more.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> None:
        """Trace ``network``, its weights frozen, on images and labels like those to come, and rewrite it for a CPU.

        Raises one of `epsbench.harness.run.speed.program.UNTRACEABLE`. Where a network hides something from autograd,
        as in a block without gradients or with a backward pass of its own, the program computes something else:
        compare it with the network before use.
        """
        with torch.no_grad():
            forward = trace(network, x)
        rewrite_forward(forward, values(forward, x))
        self._step = trace(lambda x, y: input_gradient(forward, x, y), x, y)
        if torch.backends.mkldnn.is_available():
            pack(self._step, values(self._step, x, y))

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            gradient, logits = self._step(x, y)
        return gradient, logits

    @property
    def graph(self) -> fx.Graph:
        """What is computed, operation by operation."""
        return self._step.graph
