"""The least move onto a hyperplane within the box [0, 1]. Only tensor methods are used: nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epsbench.attacks.norms.base import Norm, channels_last

if TYPE_CHECKING:
    from torch import Tensor

_LEAST, _MOST = 1e-30, 1e30  # of a slope that is divided by, and of λ where nothing has a slope
_NEWTON = 25  # steps at most; each settles at least one pixel, and on images three to six are enough


def to_plane(norm: Norm, x: Tensor, w: Tensor, f: Tensor) -> Tensor:
    """The least move of ``x`` (N, C, H, W) within the box [0, 1] that brings f + ⟨w, move⟩ to 0; f is (N,).

    Each pixel moves by min(λ · rate, its room), and λ solves Σ|w| min(λ · rate, room) = |f|. For the least change
    the rate is 1 under L∞ and |w| under L2. The left side is concave and piecewise linear in λ, so Newton's steps from
    0 rise to the solution without a sort. Where the box has too little room, every pixel moves to its face.

    Under L1 the pixels with the largest |w| move to their faces, until |f| is reached.

    Masks are numbers 0 and 1 here: on a CPU, arithmetic with them takes a tenth of the time of `torch.where`
    (`epsbench.attacks.norms.base.choose`).
    """
    weight = flat(w, x).abs()
    largest = weight.amax(1, keepdim=True).clamp_min(1e-38)  # squares of tiny gradients would underflow to 0
    weight, needed = weight / largest, f.abs()[:, None] / largest
    sign = f.sign().neg()[:, None] * flat(w, x).sign()
    room = (sign.clamp_min(0.0) - flat(x, x)).abs_()  # 1 - x upwards, x downwards
    if norm.name == "l1":
        return images(sign * _steepest_first(weight, room, needed), x)
    euclidean = norm.name == "l2"
    multiplier = _multiplier(weight, room, needed, euclidean)
    return images(sign * room.minimum(multiplier * weight if euclidean else multiplier), x)


def flat(values: Tensor, x: Tensor) -> Tensor:
    """``values`` (N, C, H, W) as (N, d), in the order in memory of ``x`` (N, C, H, W): another one costs a copy."""
    return (values.movedim(1, 3) if channels_last(x) else values).flatten(1)


def images(values: Tensor, x: Tensor) -> Tensor:
    """What `flat` has made (N, d), as (N, C, H, W) with the layout of ``x``."""
    return values.view_as(x.movedim(1, 3)).movedim(3, 1) if channels_last(x) else values.view_as(x)


def _multiplier(weight: Tensor, room: Tensor, needed: Tensor, euclidean: bool) -> Tensor:
    """The λ (N, 1) of `to_plane`, for |w| and the room of each pixel (N, d), and |f| (N, 1)."""
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


def _steepest_first(weight: Tensor, room: Tensor, needed: Tensor) -> Tensor:
    """How far each pixel (N, d) moves where those of the largest weight move first; ``needed`` is (N, 1)."""
    ordered, order = weight.sort(1, descending=True)
    space = room.gather(1, order)
    gained = (ordered * space).cumsum(1)
    before = gained - ordered * space
    moved = ((needed - before) / ordered.clamp_min(1e-30)).clamp_min(0.0).minimum(space)
    return weight.new_zeros(weight.shape).scatter(1, order, moved)
