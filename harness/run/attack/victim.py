"""The victim: the classifier under attack in its fastest form, which counts its forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from epsbench.harness.findings import Finding
from epsbench.harness.run.attack.gradient import input_gradient
from epsbench.harness.run.machine.precision import autocast

# How far a precision's logits may be off, as a share of the largest: four units in the last place.
DOUBT = {"bf16": 2.0**-6, "fp16": 2.0**-9, "float32": 0.0}


@dataclass
class Victim:
    """A trained classifier prepared for attack. Calls it are counted in rows, forwards and backwards apart.

    ``form`` says what was done to it; ``findings`` say which preparation it refused.
    """

    network: Callable[[Tensor], Tensor]
    device: torch.device
    precision: str
    form: str
    channels_last: bool = False
    findings: list[Finding] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0
    compile_seconds: float = 0.0
    differentiable: bool = True
    # Found by `epsbench.harness.run.speed.accelerate`: the gradient as a program, for two rows or more; networks and steps for one batch
    # size alone.
    program: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    fixed: tuple[int, Callable[[Tensor], Tensor]] | None = None
    graph: tuple[int, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes), float32 in type, of the victim's precision in value."""
        self.forwards += len(x)
        return self.bare_logits(x)

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the summed cross-entropy at ``x`` (N, C, H, W), and the logits; both float32."""
        self.forwards += len(x)
        self.backwards += len(x)
        if self.graph and self.graph[0] == len(x):
            return self.graph[1](x, y)
        if self.program and len(x) > 1:
            return self.program(self.laid_out(x), y)
        return self.bare_gradient(x, y)

    def bare_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """`gradient` as the network computes it, without a program or a graph, and without being counted."""
        return input_gradient(self.bare_logits, x, y)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the true class's logit over the mean logit, (N, C, H, W).

        It tells whether two forms compute the same. The loss's own gradient does not: on a confident example
        it is what rounding left of 1 - 1, and points anywhere.
        """
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.bare_logits(x)
            rise = (logits.gather(1, y[:, None]).squeeze(1) - logits.mean(1)).sum()
            (slope,) = torch.autograd.grad(rise, x)
        return slope.float()

    def laid_out(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in the layout in memory that the victim computes in: every step is spared a copy."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """By how much each row (N,) is right beyond doubt; the judge should see those below 0.

        The doubt is what the precision's logits may be off. Without it bf16 walks past images that fool in
        float32, and looks weaker than it is.
        """
        rivals = logits.scatter(1, y[:, None], float("-inf"))
        margin = logits.gather(1, y[:, None]).squeeze(1) - rivals.amax(1)
        return margin - DOUBT[self.precision] * logits.abs().amax(1)

    def bare_logits(self, x: Tensor) -> Tensor:
        """The logits (N, classes) as the network computes them, without being counted."""
        x = self.laid_out(x)
        with autocast(self.device, self.precision):
            network = self.fixed[1] if self.fixed and self.fixed[0] == len(x) else self.network
            return network(x).float()
