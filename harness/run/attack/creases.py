"""Steps along creases of the decision boundary, where one plane does not show where it is nearest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from epsbench.attacks.norms import Norm
from epsbench.attacks.norms.base import choose_rows, per_row
from epsbench.harness.run.attack.polish import BEYOND, LEAST, Planes, Polish

_HALVINGS = 30  # of the weight of two planes
_WITHIN = 1e-4  # of the distance: how far beyond every plane a point aims, so that it fools


class Creases(Polish):
    """`Polish` for a boundary that is made of flat pieces, as a ReLU network's, and nearest where two of them meet.

    There the plane at either side promises a nearer point, which lies beyond the other piece and does not fool. So the
    planes are kept: the next point is the nearest within the box that is beyond both. Of the two then one plane is
    made that touches the point (an aggregate cut; Kiwiel, 1983), and the next plane joins it. The nearest point of two
    pieces is reached; where more meet, the point comes nearer, but under L1 and L∞ not always all the way. Where the
    pieces bulge towards the clean image, one of them alone is nearest, and `Polish` has found it.
    """

    def _along(self, x: Tensor, y: Tensor, examples: Tensor, first: Planes, rounds: Tensor) -> Planes:
        last = first.take(torch.arange(len(x), device=x.device))
        rows = first.reach.isfinite().nonzero().flatten()
        x, y, examples = x[rows], y[rows], examples[rows]
        kept, way = None, first.edge[rows]
        for number in range(self.rounds - 1):
            if not len(rows):
                break
            point = (x + way).clamp_(0.0, 1.0)
            normal, lead = self.ask(point, y, examples)
            planes = Planes.at(self.norm, x, point - x, normal, lead)
            nearer = planes.bound < last.bound[rows]
            last.put(rows[nearer], planes.take(nearer))
            rise = (normal * (point - x)).flatten(1).sum(1)
            cut = scaled(self.norm, Half(normal, -lead - rise))
            cut = Half(cut.normal, cut.value - _WITHIN * last.bound[rows])
            kept, way = meeting(self.norm, x, kept or cut, cut)
            promised = 1 - self.norm.size(way) / last.bound[rows]
            usable = way.flatten(1).isfinite().all(1) & (number + 1 < rounds[rows])
            going = ((promised > LEAST) & usable).nonzero().flatten()
            rows, x, y, examples, way = rows[going], x[going], y[going], examples[going], way[going]
            kept = Half(kept.normal[going], kept.value[going])
        return last

    def _ends(self, last: Planes, limit: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The edge alone: the aim is beyond one plane. On a crease it may be that of the piece further away."""
        ways = [torch.full_like(limit, 1 + share * BEYOND) for share in (1, 3, 10, 30)]
        return [(last.edge, way, limit) for way in (*ways, (1 + 100 * BEYOND) * last.bound / last.reach)]


class Half(NamedTuple):
    """Changes δ of some images with value + ⟨normal, δ⟩ ≥ 0."""

    normal: Tensor
    """(N, C, H, W)."""

    value: Tensor
    """(N,)."""

    def at(self, delta: Tensor) -> Tensor:
        """Where δ (N, C, H, W) is: 0 on the plane, above 0 within."""
        return self.value + (self.normal * delta).flatten(1).sum(1)


def scaled(norm: Norm, half: Half) -> Half:
    """The same, with a normal of length 1 in the dual norm, so that two of them can be weighed."""
    length = norm.dual(half.normal).clamp_min(1e-30)
    return Half(half.normal / per_row(length), half.value / length)


def meeting(norm: Norm, x: Tensor, one: Half, other: Half) -> tuple[Half, Tensor]:
    """The least changes of ``x`` (N, C, H, W) within the box that lie in both, and one half-space that says as much.

    The least change in a weighted sum of the two is never larger. It is as large for one weight (duality): there it is
    in both. With more weight for one of them, it gets further into that. So halving finds the weight. Under L1 and
    L∞ the change jumps there, and a mixture of the two sides is in both.
    """
    low, high = torch.zeros_like(one.value), torch.ones_like(one.value)  # of the weight of ``one``
    first, last = _least(norm, x, other), _least(norm, x, one)
    enough_other, enough_one = one.at(first) >= 0, other.at(last) >= 0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        change = _least(norm, x, _sum(one, other, middle))
        short = one.at(change) < 0
        low, high = middle.where(short, low), high.where(short, middle)
        first, last = choose_rows(short, change, first), choose_rows(short, last, change)
    missing, there = one.at(first), one.at(last)
    share = (missing / (missing - there)).nan_to_num(0.5).clamp(0.0, 1.0)
    mixed = first + per_row(share) * (last - first)
    weight = ((low + high) / 2).masked_fill(enough_one, 1.0).masked_fill(enough_other, 0.0)
    mixed = choose_rows(enough_one, _least(norm, x, one), mixed)
    return _sum(one, other, weight), choose_rows(enough_other, _least(norm, x, other), mixed)


def _sum(one: Half, other: Half, weight: Tensor) -> Half:
    normal = per_row(weight) * one.normal + per_row(1 - weight) * other.normal
    return Half(normal, weight * one.value + (1 - weight) * other.value)


def _least(norm: Norm, x: Tensor, half: Half) -> Tensor:
    return norm.to_plane(x, half.normal, half.value.clamp_max(0.0))
