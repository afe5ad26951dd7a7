"""The losses that an attack raises: one value a row, (N,). A larger value is closer to a misclassification.

Logits are float32, (N, K), and labels ``y`` and targets are int64, (N,). Torch is imported when a loss is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss(ABC):
    """A loss of logits, a frozen value. Engines keep traced programs by it, so equal losses must compute the same."""

    version: ClassVar[int | str] = 1
    """Part of the id of every record made with the loss, where a suite names it."""

    inputs: ClassVar[tuple[str, ...]] = ("y",)
    """What it needs besides the logits, by the names of `epsbench.attacks.rows.Rows`: ``y``, ``target``, ``logits``
    at the clean image, or ``normals``, one for each class."""

    classes: ClassVar[int] = 2
    """The fewest classes that it is defined for."""

    @abstractmethod
    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        """The loss (N,) of logits (N, K), differentiable; ``inputs`` are those that `inputs` names, in its order."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """−log softmax(z)_y. It saturates where the model is confident."""

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        from torch.nn import functional as F

        return F.cross_entropy(logits, inputs[0], reduction="none")


@dataclass(frozen=True)
class Margin(Loss):
    """max_{i≠y} z_i − z_y (Carlini and Wagner, 2017, f₆ with κ = ∞): above 0 where the image is misclassified."""

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        (y,) = inputs
        return best_other(logits, y) - at_class(logits, y)


@dataclass(frozen=True)
class DLR(Loss):
    """The difference of logits ratio (Croce and Hein, 2020, eq. 6): a margin that ignores the scale of the logits.

    −(z_y − max_{i≠y} z_i) / (z_π1 − z_π3), where π sorts all logits in descending order.
    """

    classes: ClassVar[int] = 3

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        (y,) = inputs
        top = logits.topk(3, dim=1).values
        return (best_other(logits, y) - at_class(logits, y)) / (top[:, 0] - top[:, 2] + 1e-12)


@dataclass(frozen=True)
class TargetedDLR(Loss):
    """The targeted difference of logits ratio (Croce and Hein, 2020, eq. 7) towards the class ``target``.

    −(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2). Of three classes, the denominator is that of `DLR`, and the loss is −1
    towards the least likely one whatever the image: `LogitDifference` leads there.
    """

    inputs: ClassVar[tuple[str, ...]] = ("y", "target")
    classes: ClassVar[int] = 3

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        y, target = inputs
        top = logits.topk(min(4, logits.shape[1]), dim=1).values
        third = (top[:, 2] + top[:, -1]) / 2
        return (at_class(logits, target) - at_class(logits, y)) / (top[:, 0] - third + 1e-12)


@dataclass(frozen=True)
class TargetedCrossEntropy(Loss):
    """log softmax(z)_t: minus the cross-entropy with the class ``target``."""

    inputs: ClassVar[tuple[str, ...]] = ("target",)

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        (target,) = inputs
        return at_class(logits.log_softmax(1), target)


@dataclass(frozen=True)
class LogitDifference(Loss):
    """z_t − z_y: how far the class ``target`` leads the true one."""

    inputs: ClassVar[tuple[str, ...]] = ("y", "target")

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        y, target = inputs
        return at_class(logits, target) - at_class(logits, y)


@dataclass(frozen=True)
class KLToClean(Loss):
    """KL(softmax(clean logits) ‖ softmax(z)), the inner loss of TRADES (Zhang et al., 2019, eq. 5). It needs no label.

    Its gradient at the clean image is 0, so an attack with it must start elsewhere.
    """

    inputs: ClassVar[tuple[str, ...]] = ("logits",)

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        (clean,) = inputs
        log_p, log_q = clean.log_softmax(1), logits.log_softmax(1)
        return (log_p.exp() * (log_p - log_q)).sum(1)


@dataclass(frozen=True)
class LogOdds(Loss):
    """log((1 − p_y) / p_y) = log Σ_{i≠y} exp(z_i) − z_y: how likely the wrong classes are together.

    Its gradient points where that of the cross-entropy does, which is 1 − p_y times as long and is rounded to 0 where
    the model is confident.
    """

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        (y,) = inputs
        return wrong_logits(logits, y).logsumexp(1) - at_class(logits, y)


CROSS_ENTROPY: Loss = CrossEntropy()

LOG_ODDS: Loss = LogOdds()

TARGETED_DLR: Loss = TargetedDLR()

LOSSES: dict[str, Loss] = {
    "cross-entropy": CROSS_ENTROPY,
    "cross-entropy-targeted": TargetedCrossEntropy(),
    "margin": Margin(),
    "dlr": DLR(),
    "dlr-targeted": TARGETED_DLR,
    "logit-difference": LogitDifference(),
    "kl": KLToClean(),
    "log-odds": LOG_ODDS,
}
"""The losses that a suite can name."""


def at_class(logits: Tensor, classes: Tensor) -> Tensor:
    """The logit (N,) of one class a row."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def wrong_logits(logits: Tensor, y: Tensor) -> Tensor:
    """The logits (N, K) with −∞ at the class ``y``."""
    return logits.scatter(1, y[:, None], float("-inf"))


def best_other(logits: Tensor, y: Tensor) -> Tensor:
    """The largest logit (N,) of any class but ``y``."""
    return wrong_logits(logits, y).amax(1)
