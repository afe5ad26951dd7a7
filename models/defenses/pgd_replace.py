"""PGD images in place of the clean ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.models.defenses.base import Trainee
from epsbench.models.defenses.pgd_batch import PGDBatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PGDReplace(PGDBatch):
    """The largest loss in the ball: E[max over ‖δ‖ ≤ ε of J(x + δ)] (Madry et al., 2018, eq. 2.1).

    PGD approximates the maximum. The parameters are those of `PGDBatch`; clean images are not trained on.
    """

    version: ClassVar[str] = "2b26663331cb8e33"

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        return trainee.loss(trainee.attack(self.attack(), x, y, float(self.eps)), y)
