"""One FGSM step from a noisy image: as cheap as FGSM training, without catastrophic overfitting."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.fgsm import FGSM
from epsbench.models.defenses.base import Defense, Trainee, check_above_zero, check_eps, check_weight

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NFGSM(Defense):
    """J(x + η + α·sign ∇J(x + η)) with η uniform in [−kε, kε] (de Jorge et al., 2022, algorithm 1).

    ``noise`` is k and ``relative_step_size`` is α in units of ε. The perturbation is not clipped to the ball: it may be
    as large as (k + α/ε)·ε. Images are clamped to [0, 1] before and after the step, as in the authors' code. Their code
    takes the step's gradient in train mode; here adversarial images are always made in eval mode.
    """

    version: ClassVar[str] = "c1a3252c4294604b"

    eps: Fraction = Fraction(8, 255)
    noise: float = 2.0
    relative_step_size: float = 1.0

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_weight("noise", self.noise)
        check_above_zero("relative_step_size", self.relative_step_size)

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        eps = float(self.eps)
        eta = self.noise * eps * (2 * trainee.noise(len(x)).uniform(*x.shape[1:]) - 1)
        # The step starts at the noisy image, so the ball is centred there too.
        adversarial = trainee.attack(FGSM(), (x + eta).clamp(0, 1), y, self.relative_step_size * eps)
        return trainee.loss(adversarial, y)
