"""The attacked form of a model as the audits ask it: the object that the attack follows, without counting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.attacks.losses import CROSS_ENTROPY, Loss
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import in_chunks


@dataclass(frozen=True)
class Attacked:
    """A ``victim``, asked about ``batch`` images at a time. Its counts of passes stay as they are."""

    victim: Victim
    batch: int

    def logits_with_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits (N, classes), as they come along with a gradient."""
        return self._in_chunks(lambda rows: self.victim.gradient(self._laid_out(x[rows]), y[rows])[1], len(x))

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, classes), without gradients."""
        with torch.no_grad():
            return self._in_chunks(lambda rows: self.victim(self._laid_out(x[rows])), len(x))

    def query(self, loss: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (N, C, H, W) of a ``loss`` of labels (N,), and the logits (N, classes) of the same pass.

        That of the cross-entropy comes from a program where attacks get it from one; others as the network computes
        them.
        """

        def ask(rows: slice) -> Tensor:
            images = self._laid_out(x[rows])
            if loss == CROSS_ENTROPY:
                gradient, logits = self.victim.gradient(images, y[rows])
            else:
                gradient, logits = self.victim.bare_query(images, loss, y[rows])
            return torch.cat([gradient.flatten(1), logits], 1)

        both, pixels = self._in_chunks(ask, len(x)), x[0].numel()
        return both[:, :pixels].reshape(x.shape), both[:, pixels:]

    def _laid_out(self, x: Tensor) -> Tensor:
        return self.victim.laid_out(x)

    def _in_chunks(self, ask: Callable[[slice], Tensor], n: int) -> Tensor:
        with self.uncounted():
            return in_chunks(ask, n, self.batch)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Passes in here do not count."""
        before = self.victim.forwards, self.victim.backwards
        try:
            yield
        finally:
            self.victim.forwards, self.victim.backwards = before
