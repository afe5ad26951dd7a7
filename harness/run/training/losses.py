"""The losses of an epoch, and the end of a training whose loss is no number any more."""

from __future__ import annotations

import torch
from torch import Tensor

_CHECK_EVERY = 100


class TrainingDiverged(RuntimeError):  # noqa: N818 - it says what happened, as StopIteration does
    """The loss stopped being a finite number."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"training diverged: the loss is {loss} at step {step}; lower learning_rate")
        self.step = step


class Losses:
    """The losses of one epoch, kept on the device."""

    def __init__(self, steps: int, device: torch.device, first_step: int) -> None:
        self._values = torch.zeros(steps, device=device)
        self._first_step = first_step
        self._kept = 0

    def keep(self, loss: Tensor) -> None:
        """Keep a scalar loss. Every 100 steps, raise `TrainingDiverged` if one so far is not finite."""
        self._values[self._kept] = loss.detach()
        self._kept += 1
        if self._kept % _CHECK_EVERY == 0:
            self.mean()

    def mean(self) -> float:
        """The mean loss so far. Raises `TrainingDiverged` naming the first step that was not finite."""
        values = self._values[: self._kept]
        broken = torch.nonzero(~torch.isfinite(values)).flatten().tolist()
        if broken:
            raise TrainingDiverged(self._first_step + broken[0], values[broken[0]].item())
        return values.mean().item()
