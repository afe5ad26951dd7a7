"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import GradientAttack

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One full step of size ε along the gradient (Goodfellow et al., 2015, section 4).

    Under L2 the step is ε along the normalised gradient: the fast gradient method.
    """

    version: ClassVar[str] = "ffc3db78aadecc03"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps != 1:
            raise ValueError(f"steps is always 1 here, not {self.steps}; pgd takes more steps")

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv + eps * self.norm.ascent(x_adv, gradient)
