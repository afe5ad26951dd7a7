"""The gradient at every clean image, shared by all attacks that start there."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import in_chunks


class CleanGradients:
    """The gradient at every clean image, computed once, at the first question."""

    LIMIT = 2**28  # bytes, a bound on memory whatever the number of images; beyond it every row computes its own

    def __init__(self, victim: Victim, targets: Targets, batch: int, of: int = 0) -> None:
        """``batch`` images are computed at a time. ``of`` is how many targets there are, where these are some only."""
        self._victim, self._targets, self._batch, self._of = victim, targets, batch, of or len(targets)
        self._zero: np.ndarray | None = None
        self.known: Tensor | None = None
        self._logits = targets.labels.new_zeros(0, dtype=torch.float32)
        self.seconds = 0.0

    def fits(self) -> bool:
        """Whether the gradients of all targets may be kept. It does not depend on how many of them are here."""
        one = self._targets.pixels(self._targets.index.new_zeros(1))
        return one.numel() * 4 * self._of <= self.LIMIT

    @property
    def zero(self) -> np.ndarray | None:
        """Which targets (n,) have a gradient of exactly 0; None before the gradients are computed."""
        if self._zero is None and self.known is not None:
            known = self.known
            self._zero = in_chunks(
                lambda rows: known[rows].flatten(1).abs().amax(1) == 0, len(known), self._batch
            ).cpu().numpy()  # fmt: skip
        return self._zero

    @zero.setter
    def zero(self, zero: np.ndarray) -> None:
        """They were computed elsewhere."""
        self._zero = zero

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (k, C, H, W) and logits (k, classes) of the targets at these positions."""
        if self.known is None:
            started = time.perf_counter()
            everything = torch.arange(len(self._targets), device=positions.device)

            logits: list[Tensor] = []

            def gradients(rows: slice) -> Tensor:
                x = self._victim.laid_out(self._targets.pixels(everything[rows]))
                gradient, there = self._victim.gradient(x, self._targets.labels[rows])
                logits.append(there)
                return gradient

            self.known = self._victim.laid_out(in_chunks(gradients, len(everything), self._batch))
            self._logits = torch.cat(logits)[-len(everything) :]
            if positions.is_cuda:
                torch.cuda.synchronize()
            self.seconds = time.perf_counter() - started
        return self.known[positions], self._logits[positions]
