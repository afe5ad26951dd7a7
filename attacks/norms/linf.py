"""L∞: the largest change of any pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.norms.base import Norm, Region, RowNoise
from epsbench.attacks.norms.plane import all_together

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LInf(Norm):
    """The largest change of any pixel."""

    name: ClassVar[str] = "linf"

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    def start(self, noise: RowNoise, x: Tensor, eps: Tensor) -> Tensor:
        return (2 * noise.uniform(*x.shape[1:]) - 1) * eps

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().sum(1)

    def to_plane(self, x: Tensor, w: Tensor, f: Tensor) -> Tensor:
        return all_together(x, w, f, euclidean=False)

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        return delta.clamp(-eps, eps)

    def largest(self, shape: Sequence[int]) -> float:
        return 1.0

    def region(self, x: Tensor, eps: Tensor) -> Region:
        """The ball and the box meet in a box, so its two corners are enough, and a step is projected in one pass."""
        if type(self).project is not LInf.project:  # a subclass with a ball of its own
            return super().region(x, eps)
        return {"low": (x - eps).clamp_(min=0.0), "high": (x + eps).clamp_(max=1.0)}

    def within(self, region: Region, point: Tensor, eps: Tensor) -> Tensor:
        return point.clamp(region["low"], region["high"]) if "low" in region else super().within(region, point, eps)
