"""PGD images beside the clean ones, in one batch."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.pgd import PGD
from epsbench.models.defenses.base import Defense, Trainee, check_eps, norm_field, norm_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PGDBatch(Defense):
    """The ordinary loss on the batch and its PGD images, concatenated (after Madry et al., 2018).

    Both pass the network at once, so batch norm normalises them together. ``relative_step_size`` is in units of ε,
    and ``norm`` is that of the ball.
    """

    version: ClassVar[str] = "ea909bc4de49a7da"

    eps: Fraction = Fraction(8, 255)
    steps: int = 7
    relative_step_size: float = 0.25
    random_start: bool = True
    norm: str = norm_field()

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        self.attack()

    def attack(self) -> PGD:
        """The attack that makes the PGD images. Raises `ValueError` for parameters that are no attack."""
        return PGD(
            steps=self.steps,
            relative_step_size=self.relative_step_size,
            random_start=self.random_start,
            norm=norm_of(self.norm),
        )

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        import torch

        adversarial = trainee.attack(self.attack(), x, y, float(self.eps))
        return trainee.loss(torch.cat([x, adversarial]), torch.cat([y, y]))
