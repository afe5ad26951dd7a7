"""L0: how many numbers, or how many pixels, an image changes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.norms.base import NEAR, Norm, Region, RowNoise, largest_first, movable, to_faces

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class L0(Norm):
    """The number of features that change: each channel of a pixel is one. σ-zero and FMN count these."""

    version: ClassVar[int | str] = 3

    name: ClassVar[str] = "l0"
    shrinks: ClassVar[bool] = False

    def units(self, values: Tensor) -> Tensor:
        """Values (N, C, H, W) added up over what counts as one: (N, units)."""
        return values.flatten(1)

    def spread(self, units: Tensor, like: Tensor) -> Tensor:
        """The opposite of `units`: a value a unit for every number of an image."""
        return units.view_as(like)

    def size(self, delta: Tensor) -> Tensor:
        return (self.units(delta.abs()) > 0).sum(1).to(delta.dtype)

    def start(self, noise: RowNoise, x: Tensor, eps: Tensor) -> Tensor:
        # ε random features, each changed to a random value.
        units = self.units(x)
        order = noise.uniform(units.shape[1]).argsort(1).argsort(1)
        chosen = self.spread((order < eps.flatten()[:, None]).to(x.dtype), x)
        return (noise.uniform(*x.shape[1:]) - x) * chosen

    def direction(self, gradient: Tensor) -> Tensor:
        gain = self.units(gradient.abs())
        best = gain.new_zeros(gain.shape).scatter(1, gain.argmax(1, keepdim=True), 1.0)
        return gradient.sign() * self.spread(best, gradient)

    def ascent(self, x: Tensor, gradient: Tensor) -> Tensor:
        return self.direction(movable(x, gradient, NEAR))

    def step(self, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """So many units go to the faces of the box, those that gain the most. A size between two numbers is rounded up.

        In a small ball, a step of a part of its radius is less than one unit.
        """
        way = to_faces(x, gradient)
        gain = self.units(movable(x, gradient, NEAR) * way)
        return x + way * self.spread(largest_first(gain, (gain > 0).to(x.dtype), size.flatten(1).ceil()), x)

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        return delta * self._largest_units(delta**2, eps)

    def within(self, region: Region, point: Tensor, eps: Tensor) -> Tensor:
        """Jointly on ball and box: the units stay that bring the clamped point nearest to ``point``."""
        x = region["x"]
        inside = point.clamp(0.0, 1.0)
        gained = (point - x) ** 2 - (point - inside) ** 2
        return x.lerp(inside, self._largest_units(gained, eps))

    def _largest_units(self, values: Tensor, eps: Tensor) -> Tensor:
        """1 for the numbers of the ⌊ε⌋ units with the largest sum of values, 0 for others, (N, C, H, W)."""
        order = self.units(values).sort(1, descending=True).indices.argsort(1)
        return self.spread((order < eps.flatten().floor()[:, None]).to(values.dtype), values)

    def largest(self, shape: Sequence[int]) -> float:
        return float(prod(shape))


@dataclass(frozen=True)
class L0Pixels(L0):
    """The number of pixels that change, whatever channels of them do. Sparse-RS counts these."""

    name: ClassVar[str] = "l0-pixels"

    def units(self, values: Tensor) -> Tensor:
        return values.sum(1).flatten(1)

    def spread(self, units: Tensor, like: Tensor) -> Tensor:
        return units.view(len(like), 1, *like.shape[2:]).expand_as(like)

    def largest(self, shape: Sequence[int]) -> float:
        return float(prod(shape[1:]))
