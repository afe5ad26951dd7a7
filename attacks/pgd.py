"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import GradientAttack

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Steps of ``relative_step_size`` · ε, each projected back on the ball (Madry et al., 2018, section 2.1)."""

    version: ClassVar[str] = "0d737f011bff9511"

    steps: int = 10
    relative_step_size: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.relative_step_size > 0:
            raise ValueError(f"relative_step_size must be above 0, not {self.relative_step_size}")

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv + self.relative_step_size * eps * self.norm.direction(gradient)
