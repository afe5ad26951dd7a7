"""No defense: the baseline for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.models.defenses.base import Defense, Trainee

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NoDefense(Defense):
    """Ordinary training: the cross-entropy of the clean images."""

    version: ClassVar[str] = "9048c38034eca8cc"

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        return trainee.loss(x, y)
