"""The least move onto a hyperplane within the box [0, 1]. Only tensor methods are used: nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epsbench.attacks.norms.base import Norm, per_row

if TYPE_CHECKING:
    from torch import Tensor

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
    weight = w.flatten(1).abs()
    largest = weight.amax(1, keepdim=True).clamp_min(1e-38)  # squares of tiny gradients would underflow to 0
    weight, needed = weight / largest, f.abs()[:, None] / largest
    sign = (per_row(f.sign().neg()) * w.sign()).flatten(1)
    room = (sign.clamp_min(0.0) - x.flatten(1)).abs()  # 1 - x upwards, x downwards
    if norm.name == "l1":
        return (sign * _steepest_first(weight, room, needed)).view_as(x)
    euclidean = norm.name == "l2"
    gain = weight * weight if euclidean else weight  # of a pixel that is not at its face, for each unit of λ
    multiplier = needed.new_zeros(needed.shape)
    for _ in range(_NEWTON):
        reach = multiplier * weight if euclidean else multiplier
        missing = needed - (weight * room.minimum(reach)).sum(1, keepdim=True)
        slope = (gain * room.clone().gt_(reach)).sum(1, keepdim=True)
        step = missing.clamp_min(0.0) / slope.clamp_min(1e-30)
        multiplier = multiplier + step
        if multiplier.device.type == "cpu" and bool((step <= 1e-6 * multiplier).all()):
            break
    return (sign * room.minimum(multiplier * weight if euclidean else multiplier)).view_as(x)


def _steepest_first(weight: Tensor, room: Tensor, needed: Tensor) -> Tensor:
    """How far each pixel (N, d) moves where those of the largest weight move first; ``needed`` is (N, 1)."""
    ordered, order = weight.sort(1, descending=True)
    space = room.gather(1, order)
    gained = (ordered * space).cumsum(1)
    before = gained - ordered * space
    moved = ((needed - before) / ordered.clamp_min(1e-30)).clamp_min(0.0).minimum(space)
    return weight.new_zeros(weight.shape).scatter(1, order, moved)
