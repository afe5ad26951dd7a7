"""One step of a given size along a gradient, as far as the box lets it go."""

from __future__ import annotations

from torch import Tensor

from epsbench.attacks.norms import Norm
from epsbench.attacks.norms.base import NEAR, movable
from epsbench.attacks.norms.l0 import L0
from epsbench.attacks.norms.l1 import L1


def steepest(norm: Norm, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
    """Where a step of ``size`` (N, 1, 1, 1) from ``x`` (N, C, H, W) leads that gains the most along ``gradient``.

    Under L1 and L0 a norm's `direction` is one pixel, and the box takes what is longer than the way to its face: a step
    of size 12 would be as short as one of size 1. An audit that compares such steps with anything else would blame the
    model. So pixels go to the faces of the box, those first that gain the most for their size, until the step has its
    size. Under other norms the step is a plain one, which may leave the box.
    """
    if not isinstance(norm, L1 | L0):
        return x + size * norm.direction(gradient)
    slope = movable(x, gradient, NEAR)
    way = ((slope > 0).to(x.dtype) - x).masked_fill(slope == 0, 0.0)  # to the faces
    if isinstance(norm, L1):
        gain, room, budget = slope.abs().flatten(1), way.abs().flatten(1), size.flatten(1)
    else:
        gain, budget = norm.units(slope * way), size.flatten(1).ceil()  # in a small ball, one of a few steps is less
        room = (gain > 0).to(x.dtype)
    order = gain.argsort(dim=1, descending=True, stable=True)
    there = room.gather(1, order)
    taken = (budget - there.cumsum(1) + there).clamp_min(0.0).minimum(there) / there.clamp_min(NEAR)
    share = taken.new_zeros(taken.shape).scatter(1, order, taken)
    return x + way * (share.view_as(x) if isinstance(norm, L1) else norm.spread(share, x))
