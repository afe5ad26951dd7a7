"""The losses of an epoch, and the error that ends a training whose loss is not finite."""

from __future__ import annotations

import torch
from torch import Tensor

_CHECK_EVERY = 100
_FP16 = (
    "numbers above 65,504 overflow in fp16: train with precision = float32 or bf16, and if that diverges too, lower "
    "learning_rate"
)


class TrainingDiverged(RuntimeError):  # noqa: N818 - it says what happened, as StopIteration does
    """The loss stopped being a finite number."""

    def __init__(self, step: int, loss: float, precision: str = "float32") -> None:
        remedy = _FP16 if precision == "fp16" else "lower learning_rate"
        super().__init__(f"training diverged: the loss is {loss} at step {step}; {remedy}")
        self.step = step


class Losses:
    """The losses of one epoch, kept on the device."""

    def __init__(self, steps: int, device: torch.device, first_step: int, precision: str = "float32") -> None:
        """``steps`` losses at most; ``first_step`` is the number of the first; ``precision`` is that of the network."""
        self._values = torch.zeros(steps, device=device)
        self._first_step, self._precision = first_step, precision
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
            raise TrainingDiverged(self._first_step + broken[0], values[broken[0]].item(), self._precision)
        return values.mean().item()
