"""The last steps of a search for the smallest distance: along the decision boundary, to the nearest point nearby."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from epsbench.attacks.norms import NORMS, Norm
from epsbench.attacks.norms.base import choose_rows, per_row
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.line_search import CLOSE, lead, nearest_on_the_line

Ask = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``ask(x, y, examples)``: the gradient of the margin max_{i≠y} z_i − z_y at images (N, C, H, W), and the lead of the
true class there, (N,). The images have labels ``y`` and places in the split, (N,)."""

LEAST = 0.5 * CLOSE  # of the distance: what a step must promise by the plane
_POOR, _GOOD = 0.25, 0.75  # shares of what was promised: below the first a step was too long, above the other too short
_LOOSE = 2e-3  # of the distance: how near to the change of class a point is brought, to begin at
_NEAR = 0.5  # of the way to a point: how far the change of class may be from it, for the plane to be believed
BEYOND = 1e-4  # of the distance: how far beyond the expected change of class a point is tried
_ALIKE = 0.02  # of the distance: where a point is expected to be less nearer than that, both are looked at


def known(norm: Norm) -> bool:
    """Whether the harness knows the least move onto a plane under a norm: one of its own that defines `to_plane`."""
    return NORMS.get(norm.name) is norm and type(norm).to_plane is not Norm.to_plane


@dataclass
class Polish:
    """Points that fool the judge, moved along the decision boundary to where it is nearest to the clean images.

    At a point the boundary is taken for the plane where the margin, by its gradient there, is 0. The plane's nearest
    point to the clean image within the box (Croce and Hein, 2020, FAB, eq. 6) is the next point. A point counts by how
    far its plane is on the line to the clean image. Where that is no nearer than before, the boundary is curved, and
    the step is shorter, as in trust-region methods. So a round takes one gradient, and no search. A row ends when its
    step promises nothing nearer, or after ``rounds`` gradients. A flat boundary takes two. At the end one search on the
    line to the clean image brings the point to the boundary.
    """

    judge: Judge
    ask: Ask
    norm: Norm
    rounds: int
    batch: int

    def __call__(self, x: Tensor, best: Tensor, y: Tensor, examples: Tensor, leads: tuple[Tensor, Tensor]) -> Tensor:
        """Points (N, C, H, W) as near to ``x`` as ``best`` or nearer, which fool the judge as ``best`` does.

        ``examples`` (N,) are the images' places in their split, ``leads`` the `lead` at ``x`` and at ``best``, (N,).
        """
        first, best, far, rounds = self._first(x, best, y, examples, leads)
        last = self._along(x, y, examples, first, rounds)
        fools, points, there, guess = self._beyond(x, best, y, examples, last)
        also = ~fools | (last.reach > (1 - _ALIKE) * first.reach)  # whether the point of before is looked at
        rows = torch.cat([each.nonzero().flatten() for each in (fools, also)])
        far, guess = torch.cat([there[fools], far[also]]), torch.cat([guess[fools], first.share[also]])
        ends, _ = nearest_on_the_line(
            self.judge, x[rows], torch.cat([points[fools], best[also]]), y[rows], self.batch, examples[rows],
            (leads[0][rows], far), guess,
        )  # fmt: skip
        new, old = best.clone(), best.clone()
        new[fools], old[also] = ends.tensor_split([int(fools.sum())])
        kept = ~fools | (self.norm.size(old - x) < self.norm.size(new - x))
        return choose_rows(kept, old, new)

    def _first(
        self, x: Tensor, best: Tensor, y: Tensor, examples: Tensor, leads: tuple[Tensor, Tensor]
    ) -> tuple[Planes, Tensor, Tensor, Tensor]:
        """The planes at ``best``, these points (N, C, H, W), the leads and how many gradients are left, (N,).

        Where a point's plane is not on the way to the clean image, as on the far side of a small class, the point
        moves to the boundary first.
        """
        planes = Planes.at(self.norm, x, best - x, *self.ask(best, y, examples))
        lost = planes.reach.isinf().nonzero().flatten()
        rounds = torch.full_like(y, self.rounds - 1)
        if not len(lost) or self.rounds == 1:
            return planes, best, leads[1], rounds
        rounds[lost] -= 1
        best, far = best.clone(), leads[1].clone()
        best[lost], far[lost] = nearest_on_the_line(
            self.judge, x[lost], best[lost], y[lost], self.batch, examples[lost],
            (leads[0][lost], far[lost]), close=torch.full_like(far[lost], _LOOSE),
        )  # fmt: skip
        asked = self.ask(best[lost], y[lost], examples[lost])
        planes.put(lost, Planes.at(self.norm, x[lost], best[lost] - x[lost], *asked))
        return planes, best, far, rounds

    def _along(self, x: Tensor, y: Tensor, examples: Tensor, first: Planes, rounds: Tensor) -> Planes:
        """The planes of the nearest points along the boundary from ``first`` on, by ``rounds`` gradients, (N,)."""
        rows, step = torch.arange(len(x), device=x.device), torch.ones_like(first.reach)
        last, current = first.take(rows), first
        for number in range(self.rounds - 1):
            going = ((current.gain * step > LEAST) & (number < rounds[rows])).nonzero().flatten()
            if not len(going):
                break
            if len(going) < len(rows):
                rows, current, step = rows[going], current.take(going), step[going]
            start = x[rows]
            way = current.edge + per_row(step) * (current.aim - current.edge)
            point = (start + way).clamp_(0.0, 1.0)
            new = Planes.at(self.norm, start, point - start, *self.ask(point, y[rows], examples[rows]))
            share = (current.bound - new.bound) / (current.bound - current.reach * (1 - current.gain * step))
            nearer = share > 0
            step = (step * (1 - 0.5 * (share < _POOR) + (share > _GOOD))).clamp_max_(1.0)
            current = current.replaced(nearer, new)
            last.put(rows[nearer], new.take(nearer))
        return last

    def _beyond(
        self, x: Tensor, best: Tensor, y: Tensor, examples: Tensor, last: Planes
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points (N, C, H, W) nearer than ``best`` that fool the judge, a little beyond the boundary of ``last``.

        Also which rows have one (N,), its lead there, and the share of the way to it where the class should change.
        """
        fools, far = torch.zeros_like(y, dtype=torch.bool), torch.zeros_like(last.reach)
        guess, points, limit = torch.full_like(far, torch.nan), best.clone(), self.norm.size(best - x)
        for end, way, within in self._ends(last, limit):
            left = (~fools & (last.reach * way < within)).nonzero().flatten()
            if not len(left):
                continue
            point = (x[left] + per_row(way[left]) * end[left]).clamp_(0.0, 1.0)
            reached = lead(self.judge, point, y[left], self.batch, examples[left])
            there = (reached < 0) & (self.norm.size(point - x[left]) < limit[left])
            now = left[there]
            fools[now], points[now], far[now], guess[now] = True, point[there], reached[there], 1 / way[now]
        return fools, points, far, guess

    def _ends(self, last: Planes, limit: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What `_beyond` tries: ends (N, C, H, W), by what they are lengthened, and below which distance, both (N,)."""
        least, more = torch.full_like(limit, 1 + BEYOND), torch.full_like(limit, 1 + 10 * BEYOND)
        most = (1 + 100 * BEYOND) * last.bound / last.reach
        further = limit.where(last.gain > BEYOND, 0.0)
        return [(last.aim, more, further), (last.edge, least, limit), (last.edge, most, limit)]


@dataclass
class Planes:
    """What the boundary is by the gradients at some points, each row on its own. All relative to the clean images."""

    edge: Tensor
    """Where the line from the clean image through the point meets the plane, (N, C, H, W)."""

    aim: Tensor
    """Where the plane is nearest to the clean image, within the box, (N, C, H, W)."""

    share: Tensor
    """How far the edge is, as a share of the way to the point, (N,)."""

    reach: Tensor
    """The distance of the edge, (N,)."""

    bound: Tensor
    """A distance on the line at which the class has changed in all likelihood, although the boundary is no plane: that
    of a point that fools, else as far beyond the edge as the point is before it, (N,)."""

    gain: Tensor
    """How much nearer the aim is, as a share of that, (N,)."""

    @classmethod
    def at(cls, norm: Norm, x: Tensor, way: Tensor, normal: Tensor, lead: Tensor) -> Planes:
        """At the points ``x + way`` (N, C, H, W), by the margin's gradient there and the true class's lead."""
        rise = (normal * way).flatten(1).sum(1)
        share = 1 + lead / rise
        aim = norm.to_plane(x, normal, -lead - rise)
        edge = per_row(share) * way
        reach = norm.size(edge)
        gain = 1 - norm.size(aim) / reach
        usable = (rise > 0) & ((1 - share).abs() < _NEAR) & normal.flatten(1).isfinite().all(1)
        return cls(
            edge,
            aim,
            share.where(usable, torch.nan),
            reach.where(usable, torch.inf),
            (reach * (1 + (1 / share - 1).abs())).where(usable, torch.inf),
            gain.where(usable, 0.0),
        )

    def take(self, rows: Tensor) -> Planes:
        return Planes(*(getattr(self, each.name)[rows] for each in fields(self)))

    def put(self, rows: Tensor, others: Planes) -> None:
        for each in fields(self):
            getattr(self, each.name)[rows] = getattr(others, each.name)

    def replaced(self, rows: Tensor, others: Planes) -> Planes:
        """The others in these rows (N,), bool."""
        if bool(rows.all()):
            return others
        kept = Planes(*(getattr(self, each.name).clone() for each in fields(self)))
        kept.put(rows, others.take(rows))
        return kept
