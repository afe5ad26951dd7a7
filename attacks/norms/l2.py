"""L2: the Euclidean length of the change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.norms.base import Norm, RowNoise, per_row
from epsbench.attacks.norms.linf import LInf
from epsbench.attacks.norms.plane import all_together

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class L2(Norm):
    """The Euclidean length of the change."""

    name: ClassVar[str] = "l2"

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).norm(dim=1)

    def start(self, noise: RowNoise, x: Tensor, eps: Tensor) -> Tensor:
        # A uniform point of the ball: a uniform direction, and a radius whose d-th power is uniform.
        radius = per_row(noise.uniform(1)) ** (1 / x[0].numel())
        return self.direction(noise.normal(*x.shape[1:])) * radius * eps

    def direction(self, gradient: Tensor) -> Tensor:
        # Divide by the largest entry first: squares of tiny gradients would underflow to 0.
        scaled = gradient / per_row(LInf().size(gradient)).clamp_min(1e-38)
        return scaled / per_row(self.size(scaled)).clamp_min(1e-12)

    def dual(self, gradient: Tensor) -> Tensor:
        return self.size(gradient)

    def to_plane(self, x: Tensor, w: Tensor, f: Tensor) -> Tensor:
        return all_together(x, w, f, euclidean=True)

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        return delta * (eps / per_row(self.size(delta)).clamp_min(1e-12)).clamp_max(1.0)

    def surface(self, noise: RowNoise, x: Tensor, eps: Tensor) -> Tensor:
        return self.direction(noise.normal(*x.shape[1:])) * eps

    def largest(self, shape: Sequence[int]) -> float:
        return sqrt(prod(shape))
