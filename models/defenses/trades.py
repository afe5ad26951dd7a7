"""TRADES: the loss on clean images plus a penalty on how much predictions change within the ball."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import at_least_one
from epsbench.models.defenses.base import (
    Defense,
    Trainee,
    check_above_zero,
    check_eps,
    check_weight,
    norm_field,
    norm_of,
)

if TYPE_CHECKING:
    from torch import Tensor

START = 0.001  # the standard deviation of the first perturbation, in pixel units whatever ε


@dataclass(frozen=True)
class TRADES(Defense):
    """J(x) + β · max over ‖δ‖ ≤ ε of KL(p(x) ‖ p(x + δ)) (Zhang et al., 2019, algorithm 1).

    To approximate the maximum, ``steps`` steps of ``relative_step_size`` · ε are taken in eval mode: along the
    sign of the gradient under L∞, along the gradient under L2. They start
    at normal noise of standard deviation 0.001, because the KL has no gradient at x itself. As in the authors' code,
    clean and perturbed images pass the network separately, and the loss is differentiated through both predictions.
    Unlike here, their code passes the clean images twice, which updates the batch statistics once more, and does not
    clamp the noise to the box.
    """

    version: ClassVar[str] = "795bfcc349a837fc"

    eps: Fraction = Fraction(8, 255)
    beta: float = 6.0
    steps: int = 10
    relative_step_size: float = 0.25
    norm: str = norm_field()

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        check_weight("beta", self.beta)
        check_above_zero("relative_step_size", self.relative_step_size)
        at_least_one(steps=self.steps)

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        if self.beta == 0:  # plain training: the perturbed images would have no weight
            return trainee.loss(x, y)
        perturbed = self.perturb(trainee, x)
        clean, moved = trainee.logits(x, y), trainee.logits(perturbed, y)
        return trainee.cross_entropy(clean, y) + self.beta * divergence(clean, moved) / len(x)

    def perturb(self, trainee: Trainee, x: Tensor) -> Tensor:
        """Detached images (N, C, H, W) in the ball and the box whose predictions are far from those at ``x``.

        It is PGD with the loss ``kl`` and another start, and differs from `epsbench.attacks.plain.path` by rounding
        alone: there a point is clamped to x ± ε, and here its change is projected and added to x again. Weights that
        were trained with this loop would not come out bit for bit, so it stays.
        """
        norm, step = norm_of(self.norm), self.relative_step_size * float(self.eps)
        eps = x.new_full((len(x), 1, 1, 1), float(self.eps))
        clean = trainee.predict(x)
        delta = START * trainee.noise(len(x)).normal(*x.shape[1:])
        for _ in range(self.steps):
            x_adv = (x + norm.project(delta, eps)).clamp(0, 1)
            gradient = trainee.gradient(x_adv, lambda logits: divergence(clean, logits))
            delta = x_adv + step * norm.ascent(x_adv, gradient) - x
        return (x + norm.project(delta, eps)).clamp(0, 1)


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p ‖ q) in nats, summed over images, of the softmax of two sets of logits (N, classes)."""
    log_p, log_q = logits.log_softmax(1), others.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum()
