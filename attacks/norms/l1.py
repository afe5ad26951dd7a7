"""L1: the sum of the changes of all pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.norms.base import NEAR, Norm, Region, RowNoise, largest_first, movable, per_row, to_faces
from epsbench.attacks.norms.plane import steepest_first

if TYPE_CHECKING:
    from torch import Tensor

_STEPS = 40  # of the search for a threshold, at most; on images five to ten are enough


@dataclass(frozen=True)
class L1(Norm):
    """The sum of the absolute changes. The projection is on the ball and the box together."""

    version: ClassVar[int | str] = 3

    name: ClassVar[str] = "l1"

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(1)

    def start(self, noise: RowNoise, x: Tensor, eps: Tensor) -> Tensor:
        # A uniform point of the ball: exponential lengths, a random sign each, and one more length that is left out.
        count = x[0].numel()
        lengths = -(1 - noise.uniform(count + 1)).clamp_min(1e-30).log()
        signs = (noise.uniform(count) < 0.5).to(x.dtype) * 2 - 1
        return (lengths[:, 1:] * signs / lengths.sum(1, keepdim=True)).view_as(x) * eps

    def direction(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        steepest = flat.abs().argmax(1, keepdim=True)
        return flat.new_zeros(flat.shape).scatter(1, steepest, flat.gather(1, steepest).sign()).view_as(gradient)

    def ascent(self, x: Tensor, gradient: Tensor) -> Tensor:
        return self.direction(movable(x, gradient, NEAR))

    def step(self, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """Pixels go to the faces of the box, those of the steepest slope first, until the step has its size."""
        way = to_faces(x, gradient)
        slope = movable(x, gradient, NEAR).abs().flatten(1)
        return x + way * largest_first(slope, way.abs().flatten(1), size.flatten(1)).view_as(x)

    def dual(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).abs().amax(1)

    def to_plane(self, x: Tensor, w: Tensor, f: Tensor) -> Tensor:
        return steepest_first(x, w, f)

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        size = delta.flatten(1).abs()
        return _shrunk(delta, size, float("inf") + size, eps.flatten())

    def within(self, region: Region, point: Tensor, eps: Tensor) -> Tensor:
        """Jointly on ball and box: every change is shortened by one threshold, and ends at the face of the box.

        Clamping to the box after projecting on the ball would leave a part of ε unused (Croce and Hein, 2021).
        """
        x = region["x"]
        delta = point - x
        room = (delta.sign().clamp_min_(0.0) - x).abs_().flatten(1)  # 1 - x upwards, x downwards
        shrunk = _shrunk(delta, delta.flatten(1).abs(), room, eps.flatten())
        return _not_beyond(x, (x + shrunk).clamp_(0.0, 1.0), shrunk, eps)

    def largest(self, shape: Sequence[int]) -> float:
        return float(prod(shape))


def _not_beyond(x: Tensor, point: Tensor, delta: Tensor, eps: Tensor) -> Tensor:
    """``point``, which is x + δ rounded; where it lies out of the ball, pixels that rounding took further go back.

    One threshold shortens all changes, so they may all be rounded the same way. On 224 x 224 pixels that adds up to
    1.6e-3.
    """
    moved = (point - x).abs_()
    beyond = moved.flatten(1).sum(1) > eps.flatten()
    if x.device.type == "cpu" and not bool(beyond.any()):
        return point
    back = moved.gt_(delta.abs()).mul_(per_row(beyond).to(x.dtype))
    return point + point.nextafter(x).sub_(point).mul_(back)  # exact: neighbours differ by one unit in the last place


def _shrunk(delta: Tensor, size: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """sign(δ) · min(max(|δ| − λ, 0), room), with the least λ ≥ 0 at which the sum is at most ε (N,).

    The sum is piecewise linear in λ. Newton's steps find the threshold, and halve its bracket where they leave it. A
    row whose sum is ε keeps its threshold: at the solution a step leads nowhere, and the bracket's middle away.

    Masks are numbers 0 and 1 here: those of truth values take several times as long to add up on a CPU.
    """
    low, high = eps.new_zeros(len(eps)), size.amax(1)
    threshold, moved = low, size.minimum(room)
    total, slope = moved.sum(1), size.sign().mul_(room.sub(size).sign_().clamp_min_(0.0)).sum(1)
    solved = total <= eps
    for _ in range(_STEPS):
        if delta.device.type == "cpu" and bool(solved.all()):
            break
        excess = total - eps
        over = excess > 0
        low, high = threshold.where(over, low), high.where(over, threshold)
        newton = threshold + excess / slope.clamp_min(1)
        stays = (slope > 0) & (newton > low) & (newton < high)
        threshold = threshold.where(solved, newton.where(stays, (low + high) / 2))
        left = size - threshold[:, None]
        moved = left.minimum(room).clamp_min_(0.0)
        total, slope = moved.sum(1), left.eq_(moved).sum(1)  # the slope: pixels neither at 0 nor at their room
        solved = solved | ((total - eps).abs() <= 1e-6 * eps) | (high - low <= 1e-7 * high)
    scale = (eps / total.clamp_min(1e-30)).clamp_max(1.0)  # what rounding left beyond ε
    return (delta.sign().flatten(1).mul_(moved).mul_(scale[:, None])).view_as(delta)
