"""The few images that the audits of a model look at, with the model's logits and gradients there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from epsbench.attacks.losses import LOG_ODDS
from epsbench.harness.run.attack.gradient import input_gradient
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.machine.precision import autocast


@dataclass(frozen=True)
class Probe:
    """Images ``x`` (N, C, H, W) in [0, 1] and labels ``y`` (N,). The judge takes ``batch`` of them at a time."""

    judge: Judge
    x: Tensor
    y: Tensor
    batch: int
    _known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def logits(self, x: Tensor) -> Tensor:
        """Float32 logits (N, classes)."""
        return self.judge.logits(x, self.batch)

    def logits_at(self, x: Tensor, first: int | None = None) -> Tensor:
        """`logits` of images that several audits look at: they are asked for once, until `forget`.

        ``first``: of so many images alone; the others are not asked about for these.
        """
        images, logits = self._known.get(id(x), (None, None))
        if images is not x or logits is None:
            logits = self.logits(x[:first])
            if first is None:
                self.know(x, logits)
        return logits[:first]

    def know(self, x: Tensor, logits: Tensor) -> None:
        """Take these for the logits (N, classes) of images (N, C, H, W), until `forget`."""
        self._known[id(x)] = x, logits

    def forget(self) -> None:
        """Keep no images of `logits_at` any longer but `x`."""
        for key in self._known.keys() - {id(self.x)}:
            del self._known[key]

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Float32 gradient of the cross-entropy, (N, C, H, W)."""
        function = self.judge.function
        return in_chunks(lambda rows: input_gradient(function, x[rows], y[rows])[0], len(x), self.batch)

    def gradient_of(self, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Gradient (N, C, H, W) of ``loss`` of float64 logits (N, classes) and labels (N,), one value a row."""

        def at(rows: slice) -> Tensor:
            leaf = x[rows].detach().clone().requires_grad_(True)
            with torch.enable_grad():
                value = loss(self.judge.function(leaf).double(), y[rows]).sum()
                (gradient,) = torch.autograd.grad(value, leaf)
            return gradient.float()

        return in_chunks(at, len(x), self.batch)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of `log_odds`, (N, C, H, W): along that of the cross-entropy, and it does not underflow."""
        return self.gradient_of(log_odds, x, y)

    def gradient_in(self, victim: Victim, precision: str) -> Tensor:
        """The gradient (N, C, H, W) at the probe, through the victim's network in another precision."""
        if victim.random:
            other = replace(victim, precision=precision)
            return in_chunks(lambda rows: other.bare_gradient(self.x[rows], self.y[rows])[0], len(self.x), self.batch)

        def at(rows: slice) -> Tensor:
            def network(x: Tensor) -> Tensor:
                with autocast(victim.device, precision):
                    return victim.network(x)

            return input_gradient(network, self.x[rows], self.y[rows])[0]

        return in_chunks(at, len(self.x), self.batch)


def log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log(p(not y) / p(y)), (N,) float64. It rises with the cross-entropy, which saturates at 0 while this does not."""
    return LOG_ODDS(logits.double(), y)
