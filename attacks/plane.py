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
    """
    largest = per_row(w.flatten(1).abs().amax(1)).clamp_min(1e-38)  # squares of tiny gradients would underflow to 0
    w, f = w / largest, f / largest.flatten()
    rate = w.abs() if norm.name == "l2" else w.new_ones(()).expand_as(w)
    sign = -per_row(f.sign()) * w.sign()
    room = (1 - x).where(sign > 0, x)
    weight, needed = w.abs(), f.abs()
    gain, full = (weight * rate).flatten(1), (weight * room).flatten(1)
    scale = rate.flatten(1)
    reach = room.flatten(1)
    multiplier = needed.new_zeros(len(needed), 1)
    for _ in range(_NEWTON):
        at_face = multiplier * scale >= reach
        left = needed - full.masked_fill(~at_face, 0.0).sum(1)
        slope = gain.masked_fill(at_face, 0.0).sum(1)
        new = (left.clamp_min(0.0) / slope.clamp_min(1e-30))[:, None]
        settled = new <= multiplier * (1 + 1e-6)
        multiplier = new.maximum(multiplier)
        if multiplier.device.type == "cpu" and bool(settled.all()):
            break
    return sign * (multiplier.view(-1, 1, 1, 1) * rate).minimum(room)
