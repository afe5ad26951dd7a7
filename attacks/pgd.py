"""Projected gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from math import pi
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import LATER, GradientAttack

if TYPE_CHECKING:
    from torch import Tensor


STEP_RULES: dict[str, Callable[[Tensor, int], Tensor] | None] = {
    "constant": None,
    "linear": lambda step, steps: 1 - step / steps,
    "cosine": lambda step, steps: (1 + (pi * step / steps).cos()) / 2,
    "sqrt": lambda step, steps: (step + 1).rsqrt(),
}
"""What a step's size is multiplied by, from the number of the step, which counts from 0, and of all steps."""


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Steps of ``relative_step_size`` · ε, each projected back on the ball (Madry et al., 2018, section 2.1)."""

    version: ClassVar[str] = "0d737f011bff9511"

    steps: int = 10
    relative_step_size: float = 0.25

    step_size: Fraction | None = field(default=None, metadata=LATER, repr=False)
    """The size of a step in pixel units, such as ``"2/255"``, in place of ``relative_step_size`` · ε."""

    step_rule: str = field(default="constant", metadata=LATER, repr=False)
    """How the size of step t of T decays: ``constant``; ``linear``, 1 − t/T; ``cosine``, (1 + cos πt/T)/2;
    ``sqrt``, 1/√(t + 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.relative_step_size > 0:
            raise ValueError(f"relative_step_size must be above 0, not {self.relative_step_size}")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"step_size must be above 0, not {self.step_size}")
        if self.step_rule not in STEP_RULES:
            raise ValueError(f"step_rule must be one of {', '.join(STEP_RULES)}, not {self.step_rule!r}")

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv + self.size(eps, step) * self.norm.ascent(x_adv, gradient)

    def cycles(self) -> bool:
        """Its steps have one size and no momentum. Of a subclass nothing is known."""
        same_answer = self.samples == 1 and "normals" not in self.loss.inputs
        return type(self) is PGD and STEP_RULES[self.step_rule] is None and same_answer

    def size(self, eps: Tensor, step: Tensor) -> Tensor:
        """The size (N, 1, 1, 1) of this step."""
        whole = self.relative_step_size * eps if self.step_size is None else eps * 0 + float(self.step_size)
        decay = STEP_RULES[self.step_rule]
        return whole if decay is None else whole * decay(step.float(), self.steps)
