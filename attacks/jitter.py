"""Jitter: projected gradient steps along a loss of scaled and disturbed outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.losses import Loss
from epsbench.attacks.pgd import PGD

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class JitterLoss(Loss):
    """‖ẑ + N(0, σ²) − Y‖² with ẑ = softmax(α·z/‖z‖∞) and Y the label's one-hot code (Schwinn et al., 2023, eq. 7).

    Towards a target, minus the distance to the target's code. The paper also divides by the size of a perturbation
    that fools; here such an image is done.
    """

    inputs: ClassVar[tuple[str, ...]] = ("y", "normals")

    scale: float = 10.0
    """α."""

    deviation: float = 0.1
    """σ."""

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        label, normals = inputs
        scaled = self.scale * logits / logits.abs().amax(1, keepdim=True).clamp_min(1e-12)
        disturbed = scaled.softmax(1) + self.deviation * normals
        one_hot = disturbed.new_zeros(disturbed.shape).scatter(1, label[:, None], 1.0)
        return ((disturbed - one_hot) ** 2).sum(1)


@dataclass(frozen=True)
class TargetedJitterLoss(JitterLoss):
    """`JitterLoss` towards a target class."""

    inputs: ClassVar[tuple[str, ...]] = ("target", "normals")

    def __call__(self, logits: Tensor, *inputs: Tensor) -> Tensor:
        return -super().__call__(logits, *inputs)


@dataclass(frozen=True, kw_only=True)
class Jitter(PGD):
    """Projected gradient steps along `JitterLoss` (Schwinn et al., 2023, algorithm 1)."""

    version: ClassVar[str] = "v1"

    random_start: bool = True

    loss: Loss = field(default=JitterLoss(), init=False, repr=False)

    scale: float = 10.0
    """α: the largest logit is scaled to it before the softmax."""

    deviation: float = 0.1
    """σ of the noise on the outputs, drawn anew at every step."""

    def __post_init__(self) -> None:
        if not self.scale > 0 or self.deviation < 0:
            raise ValueError("scale must be above 0, and deviation at least 0")
        kind = JitterLoss if self.target is None else TargetedJitterLoss
        object.__setattr__(self, "loss", kind(self.scale, self.deviation))
        super().__post_init__()
