"""The losses of an epoch, and the error that ends a training whose loss is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

_CHECK_EVERY = 100
_FP16 = (
    "numbers above 65,504 overflow in fp16: train with precision = float32 or bf16, and if that diverges too, lower "
    "learning_rate"
)
_AT_ONCE = (
    "no step has changed a weight yet, so no learning_rate helps: find the division, logarithm or overflow in the "
    "model or its loss"
)
_LOWER = "lower learning_rate"


class TrainingDiverged(RuntimeError):  # noqa: N818 - it says what happened, as StopIteration does
    """The loss, or another number of the training, stopped being finite."""

    def __init__(
        self,
        step: int,
        loss: float,
        precision: str = "float32",
        name: str = "the loss",
        parts: Mapping[str, float] | None = None,
        remedies: Mapping[str, str] | None = None,
    ) -> None:
        """``name`` is what became ``loss``, and ``parts`` are the numbers it is made of at that step.

        ``remedies`` says of a part what to do where it is the only one that is not finite.
        """
        broken = [part for part, value in (parts or {}).items() if not math.isfinite(value)]
        whole = [part for part in parts or {} if part not in broken]
        named = f", made of {' and '.join(f'{part} {value:.4g}' for part, value in parts.items())}," if parts else ""
        if precision == "fp16":
            remedy = _FP16
        elif step == 0:
            remedy = _AT_ONCE
        elif len(broken) == 1 and whole and remedies and broken[0] in remedies:
            remedy = f"{remedies[broken[0]]}, or {_LOWER}"
        else:
            remedy = _LOWER
        super().__init__(f"training diverged: {name}{named} is {loss} at step {step}; {remedy}")
        self.step = step


class Losses:
    """The losses of one epoch, and what is tracked beside them, kept on the device."""

    def __init__(
        self,
        steps: int,
        device: torch.device,
        first_step: int,
        precision: str = "float32",
        remedies: Mapping[str, str] | None = None,
    ) -> None:
        """``steps`` losses at most; ``first_step`` is the number of the first; ``precision`` is that of the network.

        ``remedies`` names the last of the tracked numbers, which the loss is made of, and says what to do where one of
        them alone is not finite.
        """
        self._values = torch.zeros(steps, device=device)
        self._tracked = torch.zeros(steps, 0, device=device)
        self._first_step, self._precision = first_step, precision
        self._remedies = remedies or {}
        self._kept = 0

    def keep(self, loss: Tensor, tracked: Tensor | None = None) -> None:
        """Keep a scalar loss, and a scalar or vector beside it.

        Every 100 steps, raise `TrainingDiverged` if one so far is not finite.
        """
        if tracked is not None:
            if not self._tracked.shape[1]:
                self._tracked = self._values.new_zeros(len(self._values), tracked.numel())
            self._tracked[self._kept] = tracked.detach().flatten()
        self._values[self._kept] = loss.detach()
        self._kept += 1
        if self._kept % _CHECK_EVERY == 0:
            self.mean()

    def mean(self) -> float:
        """The mean loss so far. Raises `TrainingDiverged` naming the first step that was not finite."""
        values = self._values[: self._kept]
        both = torch.cat([values[:, None], self._tracked[: self._kept]], dim=1)
        broken = torch.nonzero(~torch.isfinite(both).all(1)).flatten().tolist()
        if broken:
            loss, *tracked = both[broken[0]].tolist()
            known = tracked[len(tracked) - len(self._remedies) :]
            parts = dict(zip(self._remedies, known, strict=True)) if tracked else {}
            step = self._first_step + broken[0]
            raise TrainingDiverged(step, loss, self._precision, parts=parts, remedies=self._remedies)
        return values.mean().item()

    def tracked(self) -> list[float]:
        """The means of what was kept beside the losses."""
        return [values.contiguous().mean().item() for values in self._tracked[: self._kept].unbind(1)]
