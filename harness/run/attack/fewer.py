"""The last steps of a search for the fewest changes: some changes for others that gain more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.attacks.norms.l0 import L0
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.line_search import lead
from epsbench.harness.run.attack.polish import Ask

_GROWN, _LESS = 16.0, 16.0  # how many further changes there are at first, as a share of those, and by what it falls
_LEAST = 0.3  # the share below which a row ends
_PART = 0.9  # of the changes that a point can do without: so many go before the others are weighed again
_COARSE = 0.5  # how far a bisection for their number may be off, as a share of it


@dataclass
class Fewer:
    """Points that fool the judge, with fewer features or pixels changed, whichever the norm counts.

    What counts is called a unit. By the margin's gradient at a point, each unit gains some of the margin where it moves
    to the face of the box. A point grows: more units change, those that gain the most. Then it is thinned: by the
    gradient there, those that gain the least are taken back. Where in the end fewer are changed than before, the point
    grows again, else by a smaller share. A row ends after ``rounds`` gradients at most.
    """

    judge: Judge
    ask: Ask
    norm: L0
    rounds: int
    batch: int

    def __call__(self, x: Tensor, best: Tensor, y: Tensor, examples: Tensor) -> Tensor:
        """Points (N, C, H, W) that fool the judge as ``best`` does, with at most as many changes from ``x``."""
        best, rows, left = best.clone(), torch.arange(len(x), device=x.device), self.rounds
        share = torch.full((len(x),), _GROWN, device=x.device)
        while left > 1 and len(rows):
            normal, _ = self.ask(best[rows], y[rows], examples[rows])
            grown = self._grown(x[rows], best[rows], normal, share)
            left -= 1
            before = self._changed(best[rows] - x[rows]).sum(1)
            best[rows], left = self._thinned(x[rows], grown, best[rows], y[rows], examples[rows], left)
            after = self._changed(best[rows] - x[rows]).sum(1)
            share = share.where(after < before, share / _LESS)
            going = (share >= _LEAST) & (after > 1)
            rows, share = rows[going], share[going]
        return best

    def _changed(self, delta: Tensor) -> Tensor:
        """Which units of changes (N, C, H, W) are not 0: (N, units)."""
        return self.norm.units(delta.abs()) > 0

    def _grown(self, x: Tensor, point: Tensor, normal: Tensor, share: Tensor) -> Tensor:
        """The points with all changes, and a ``share`` (N,) more, at the faces that the gradient points to."""
        changed = self._changed(point - x)
        face = (normal > 0).to(point.dtype).where(normal != 0, point)
        gain = self.norm.units(normal * (face - x)).masked_fill(changed, torch.inf)
        number = ((1 + share) * changed.sum(1)).ceil().long().clamp_max(gain.shape[1])
        most = gain.topk(int(number.max()), 1).values
        chosen = gain >= most.gather(1, number[:, None] - 1)
        return point.lerp(face, self.norm.spread(chosen.to(x.dtype), x))

    def _thinned(
        self, x: Tensor, grown: Tensor, best: Tensor, y: Tensor, examples: Tensor, left: int
    ) -> tuple[Tensor, int]:
        """The points of ``best``, or those with fewer changes that ``grown`` leads to; the gradients that are left."""
        best, rows, point = best.clone(), torch.arange(len(x), device=x.device), grown
        while left > 0 and len(rows):
            start = x[rows]
            normal, reached = self.ask(point, y[rows], examples[rows])
            left -= 1
            gains = self._gains(start, point, normal)
            spare, thin = self._spare(start, point, gains, reached, y[rows], examples[rows])
            fewer = (self._changed(thin - start).sum(1) < self._changed(best[rows] - start).sum(1)) & (spare > 0)
            best[rows[fewer]] = thin[fewer]
            going = spare > 1
            gone = (_PART * spare).ceil()
            point = self._without(start, point, gains, gone.long())[going]
            rows = rows[going]
        return best, left

    def _gains(self, x: Tensor, point: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """What each unit's change gains, (N, units), ∞ where it is none, and the least gains in order, (N, k)."""
        delta = point - x
        changed = self._changed(delta)
        gain = self.norm.units(normal * delta).masked_fill(~changed, torch.inf)
        return gain, gain.topk(int(changed.sum(1).max()), 1, largest=False).values

    def _without(self, x: Tensor, point: Tensor, gains: tuple[Tensor, Tensor], number: Tensor) -> Tensor:
        """The points without so many (N,) changes that gain the least, or more where some gain the same."""
        gain, ordered = gains
        last = ordered.gather(1, (number - 1).clamp_min(0)[:, None])
        kept = (gain > last) | (number == 0)[:, None]
        return x.lerp(point, self.norm.spread(kept.to(x.dtype), x))

    def _spare(
        self, x: Tensor, point: Tensor, gains: tuple[Tensor, Tensor], reached: Tensor, y: Tensor, examples: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How many changes (N,) the points can do without, of those that gain the least, and the points without.

        A bisection, for the rows that fool, whose lead ``reached`` (N,) is below 0. Of others none.
        """
        low, high = torch.zeros_like(y), self._changed(point - x).sum(1)  # so many can go, and so many cannot
        rows, going = torch.arange(len(x), device=x.device), (reached < 0) & (high - low > 1)
        some = [x, point, *gains, y, examples]
        while bool(going.any()):
            if not bool(going.all()):
                rows, some = rows[going], [each[going] for each in some]
            start, full, gain, ordered, labels, places = some
            middle = (low[rows] + high[rows]) // 2
            tried = self._without(start, full, (gain, ordered), middle)
            now = lead(self.judge, tried, labels, self.batch, places) < 0
            low[rows], high[rows] = middle.where(now, low[rows]), middle.where(~now, high[rows])
            going = high[rows] - low[rows] > 1 + _COARSE * low[rows]
        return low, self._without(x, point, gains, low)
