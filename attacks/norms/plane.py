"""The least move onto a hyperplane within the box [0, 1], `epsbench.attacks.norms.base.Norm.to_plane`, norm by norm.

``x`` and ``w`` are (N, C, H, W) and f is (N,), as there. Masks are numbers 0 and 1 here: on a CPU, arithmetic with them
takes a tenth of the time of `torch.where` (`epsbench.attacks.norms.base.choose`). Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from epsbench.attacks.norms.base import channels_last

if TYPE_CHECKING:
    from torch import Tensor

_LEAST, _MOST = 1e-30, 1e30  # of a slope that is divided by, and of λ where nothing has a slope
_NEWTON = 25  # steps at most; each settles at least one pixel, and on images three to six are enough


def all_together(x: Tensor, w: Tensor, f: Tensor, *, euclidean: bool) -> Tensor:
    """The move under L∞, or ``euclidean``, under L2.

    Each pixel moves by min(λ · rate, its room), and λ solves Σ|w| min(λ · rate, room) = |f|. For the least change
    the rate is 1 under L∞ and |w| under L2. The left side is concave and piecewise linear in λ, so Newton's steps from
    0 rise to the solution without a sort. Where the box has too little room, every pixel moves to its face.
    """
    sign, weight, room, needed = _Slopes.of(x, w, f)
    multiplier = _multiplier(weight, room, needed, euclidean)
    return images(sign * room.minimum(multiplier * weight if euclidean else multiplier), x)


def steepest_first(x: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """The move under L1: the pixels with the largest |w| move to their faces, until |f| is reached."""
    sign, weight, room, needed = _Slopes.of(x, w, f)
    ordered, order = weight.sort(1, descending=True)
    space = room.gather(1, order)
    gained = (ordered * space).cumsum(1)
    before = gained - ordered * space
    moved = ((needed - before) / ordered.clamp_min(_LEAST)).clamp_min(0.0).minimum(space)
    return images(sign * weight.new_zeros(weight.shape).scatter(1, order, moved), x)


class _Slopes(NamedTuple):
    """What the pixels (N, d) gain on the way to the plane, in the order in memory of the images."""

    sign: Tensor
    """The direction of each, (N, d): 1, −1, or 0 where it gains nothing."""

    weight: Tensor
    """|w|, as a share of the row's largest, (N, d)."""

    room: Tensor
    """How far each is from the face that it moves to, (N, d)."""

    needed: Tensor
    """|f| over the row's largest |w|, (N, 1)."""

    @classmethod
    def of(cls, x: Tensor, w: Tensor, f: Tensor) -> _Slopes:
        slope = flat(w, x)
        weight = slope.abs()
        largest = weight.amax(1, keepdim=True).clamp_min(1e-38)  # squares of tiny gradients would underflow to 0
        sign = f.sign().neg()[:, None] * slope.sign()
        room = (sign.clamp_min(0.0) - flat(x, x)).abs_()  # 1 - x upwards, x downwards
        return cls(sign, weight / largest, room, f.abs()[:, None] / largest)


def flat(values: Tensor, x: Tensor) -> Tensor:
    """``values`` (N, C, H, W) as (N, d), in the order in memory of ``x`` (N, C, H, W): another one costs a copy."""
    return (values.movedim(1, 3) if channels_last(x) else values).flatten(1)


def images(values: Tensor, x: Tensor) -> Tensor:
    """What `flat` has made (N, d), as (N, C, H, W) with the layout of ``x``."""
    return values.view_as(x.movedim(1, 3)).movedim(3, 1) if channels_last(x) else values.view_as(x)


def _multiplier(weight: Tensor, room: Tensor, needed: Tensor, euclidean: bool) -> Tensor:
    """The λ (N, 1) of `all_together`, for |w| and the room of each pixel (N, d), and |f| (N, 1)."""
    gain = weight * weight if euclidean else weight  # of a pixel that is not at its face, for each unit of λ
    slope = _slope(gain, room, needed.new_zeros(needed.shape))
    multiplier = (needed / slope.clamp_min(_LEAST)).clamp_max(_MOST)
    for _ in range(_NEWTON):
        reach = multiplier * weight if euclidean else multiplier
        before, slope = slope, _slope(gain, room, reach)
        inexact = (slope < before) & (slope > 0)  # a further pixel came to its face, and others are left
        if slope.device.type == "cpu" and not bool(inexact.any()):
            break
        missing = needed - room.minimum(reach).mul_(weight).sum(1, keepdim=True)
        step = missing.clamp_min(0.0) / slope.clamp_min(_LEAST)
        multiplier = (multiplier + step).where(inexact, multiplier)
    return multiplier


def _slope(gain: Tensor, room: Tensor, reach: Tensor) -> Tensor:
    """What the pixels (N, d) that are not at their faces gain together for each unit of λ, (N, 1)."""
    return room.clone().gt_(reach).mul_(gain).sum(1, keepdim=True)
