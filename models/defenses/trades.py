"""Accuracy on clean images, traded against how far predictions move within the ball."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from epsbench.models.defenses.base import Defense, Trainee, check_above_zero, check_eps, check_weight

if TYPE_CHECKING:
    from torch import Tensor

START = 0.001  # the standard deviation of the first perturbation, in pixel units whatever ε


@dataclass(frozen=True)
class TRADES(Defense):
    """J(x) + β · max over ‖δ‖∞ ≤ ε of KL(p(x) ‖ p(x + δ)) (Zhang et al., 2019, algorithm 1).

    The maximum is sought by ``steps`` sign steps of ``relative_step_size`` · ε in eval mode, from normal noise of
    standard deviation 0.001: at x itself the divergence has no gradient. As in the authors' code the loss sees clean
    and perturbed images in passes of their own and is differentiated through both predictions; theirs passes the clean
    images twice, which moves the batch statistics once more, and does not keep the noise in the box.
    """

    version: ClassVar[str] = "795bfcc349a837fc"

    eps: Fraction = Fraction(8, 255)
    beta: float = 6.0
    steps: int = 10
    relative_step_size: float = 0.25

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_weight("beta", self.beta)
        check_above_zero("relative_step_size", self.relative_step_size)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        from torch.nn import functional as F

        if self.beta == 0:  # plain training: no pass for what would weigh nothing
            return trainee.loss(x, y)
        perturbed = self.perturb(trainee, x)
        clean, moved = trainee.logits(x, y), trainee.logits(perturbed, y)
        return F.cross_entropy(clean, y) + self.beta * divergence(clean, moved) / len(x)

    def perturb(self, trainee: Trainee, x: Tensor) -> Tensor:
        """Detached images (N, C, H, W) in the ball and the box whose predictions are far from those at ``x``."""
        eps, step = float(self.eps), self.relative_step_size * float(self.eps)
        clean = trainee.predict(x)
        delta = START * trainee.noise(len(x)).normal(*x.shape[1:])
        for _ in range(self.steps):
            x_adv = (x + delta.clamp(-eps, eps)).clamp(0, 1)
            gradient = trainee.gradient(x_adv, lambda logits: divergence(clean, logits))
            delta = x_adv + step * gradient.sign() - x
        return (x + delta.clamp(-eps, eps)).clamp(0, 1)


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(p ‖ q) in nats, summed over images, of the softmax of two sets of logits (N, classes)."""
    log_p, log_q = logits.log_softmax(1), others.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum()
