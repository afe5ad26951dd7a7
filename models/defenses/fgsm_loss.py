"""A weighted mean of the losses on clean images and on their FGSM images."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.fgsm import FGSM
from epsbench.models.defenses.base import Defense, Trainee, check_eps, norm_field, norm_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FGSMLoss(Defense):
    """α·J(x) + (1 − α)·J(x + ε·sign ∇J(x)) (Goodfellow et al., 2015, section 6).

    Clean and FGSM images go through the network in two passes, so batch norm normalises each by its own statistics.
    Under ``norm = "l2"`` the step is along the gradient, of length ε.
    """

    version: ClassVar[str] = "7446afa5b16c98db"

    eps: Fraction = Fraction(8, 255)
    alpha: float = 0.5
    norm: str = norm_field()

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is a weight between 0 and 1, not {self.alpha}")

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        adversarial = trainee.attack(FGSM(norm=norm_of(self.norm)), x, y, float(self.eps))
        return self.alpha * trainee.loss(x, y) + (1 - self.alpha) * trainee.loss(adversarial, y)
