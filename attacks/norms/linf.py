"""L∞: the largest change of any pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.norms.base import Norm, RowNoise

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

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        return delta.clamp(-eps, eps)
