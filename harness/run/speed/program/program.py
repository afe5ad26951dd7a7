"""The programs of a victim: its logits, and the gradient of a loss, computed without Python modules or autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from epsbench.attacks.losses import CROSS_ENTROPY, Loss
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.speed.program.forward import rewrite_forward
from epsbench.harness.run.speed.program.packing import pack
from epsbench.harness.run.speed.program.products import make_products_alike
from epsbench.harness.run.speed.program.tracing import trace, values


class Program:
    """`epsbench.harness.run.attack.gradient.loss_gradient` of one network and loss, for images (N, C, H, W).

    N is 2 or more.
    """

    def __init__(
        self, network: Callable[[Tensor], Tensor], x: Tensor, *inputs: Tensor, loss: Loss = CROSS_ENTROPY
    ) -> None:
        """Trace ``network``, its weights frozen, on images and inputs of the loss like those to come.

        It is rewritten for a CPU.

        Raises one of `epsbench.harness.run.speed.program.UNTRACEABLE`. Where a network hides something from autograd,
        as in a block without gradients or with a backward pass of its own, the program computes something else:
        compare it with the network before use.
        """
        forward = _forward(network, x)
        self._step = trace(lambda x, *inputs: loss_gradient(forward, x, loss, inputs), x, *inputs)
        if torch.backends.mkldnn.is_available():
            pack(self._step, values(self._step, x, *inputs))
        make_products_alike(self._step)

    def __call__(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            gradient, logits = self._step(x, *inputs)
        return gradient, logits

    @property
    def graph(self) -> fx.Graph:
        """What is computed, operation by operation."""
        return self._step.graph


class ForwardProgram:
    """The logits of one network, for images (N, C, H, W); N is 2 or more."""

    def __init__(self, network: Callable[[Tensor], Tensor], x: Tensor, *, own_layouts: bool = False) -> None:
        """As `Program`, without a gradient; with ``own_layouts``, as `epsbench.harness.run.speed.program.blocked`."""
        self.own_layouts = own_layouts
        self._forward = _forward(network, x, backward=False, own_layouts=own_layouts)
        if torch.backends.mkldnn.is_available():
            pack(self._forward, values(self._forward, x))
        make_products_alike(self._forward)

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self._forward(x)
        return logits

    @property
    def graph(self) -> fx.Graph:
        """What is computed, operation by operation."""
        return self._forward.graph


def _forward(
    network: Callable[[Tensor], Tensor], x: Tensor, *, backward: bool = True, own_layouts: bool = False
) -> fx.GraphModule:
    with torch.no_grad():
        forward = trace(network, x)
    rewrite_forward(forward, x, backward=backward, own_layouts=own_layouts)
    return forward
