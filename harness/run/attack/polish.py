"""The last steps of a search for the smallest distance: along the decision boundary, to the nearest point nearby."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.attacks.norms import NORMS, Norm
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.plane import to_plane
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.line_search import CLOSE, lead, nearest_on_the_line

Gradient = Callable[[Tensor, Tensor], Tensor]
"""``gradient(x, y)`` of the margin max_{i≠y} z_i − z_y at images (N, C, H, W) with labels (N,)."""

_LOOSE = 2e-3  # of the distance: how near the change of class must be before the last round
_LEAST = 0.5 * CLOSE  # of the distance: what a step must promise by the plane
_POOR, _GOOD = 0.25, 0.75  # shares of what was promised: below the first a step was too long, above the other too short


def known(norm: Norm) -> bool:
    """Whether the least move onto a plane is known under a norm."""
    return norm.shrinks and NORMS.get(norm.name) is norm


@dataclass
class Polish:
    """Points that fool the judge, moved along the decision boundary to where it is nearest to the clean images.

    A point moves to the boundary on the line to the clean image. There the boundary is taken for a plane, and the
    plane's nearest point to the clean image within the box (Croce and Hein, 2020, FAB, eq. 6) gives the next line.
    Where the boundary is curved, the step there is shorter, and adapts as in trust-region methods. A row ends when its
    step promises nothing nearer, or after ``rounds`` gradients. A flat boundary takes two.
    """

    judge: Judge
    gradient: Gradient
    norm: Norm
    rounds: int
    batch: int

    def __call__(self, x: Tensor, best: Tensor, y: Tensor, examples: Tensor, clean: Tensor) -> Tensor:
        """Points (N, C, H, W) as near to ``x`` as ``best`` or nearer, which fool the judge as ``best`` does.

        ``examples`` (N,) are the images' places in their split, ``clean`` (N,) the `lead` at ``x``.
        """
        at = _Points(x, best.clone(), y, examples, clean, lead(self.judge, best, y, self.batch, examples))
        guess = torch.full_like(clean, torch.nan)  # the share of the way to the best point where the class may change
        step = torch.ones_like(clean)  # of the way to where the plane is nearest
        rows = (at.margin < 0).nonzero().flatten()
        for number in range(self.rounds):
            if not len(rows):
                break
            start, normal = x[rows], self.gradient(at.best[rows], y[rows])
            if not number:
                self._inwards(at, rows, normal, torch.full_like(rows, _LOOSE, dtype=x.dtype))
            guess[rows] = at.crossing(rows, normal)
            aim = start + at.move(self.norm, rows, normal)
            size, promised = self.norm.size(at.best[rows] - start), self.norm.size(aim - start)
            gain = 1 - promised / (size * guess[rows].clamp(0.0, 1.0).nan_to_num(1.0))
            gain = gain.masked_fill(~normal.flatten(1).isfinite().all(1), 0.0)
            moved = self._step(at, rows, aim, gain, step)
            rows, size, promised = rows[moved], size[moved], promised[moved]
            self._inwards(at, rows, normal[moved], (gain[moved] / 4).clamp(CLOSE, _LOOSE))
            gained = size - self.norm.size(at.best[rows] - x[rows])
            share = gained / ((size - promised) * step[rows])
            step[rows] *= (1 - 0.5 * (share < _POOR) + (share > _GOOD)).clamp_max(1 / step[rows])
            guess[rows] = torch.nan
        return self._search(at, torch.arange(len(x), device=x.device), guess)[0]

    def _step(self, at: _Points, rows: Tensor, aim: Tensor, gain: Tensor, step: Tensor) -> Tensor:
        """Move the best points of ``rows`` towards ``aim``, by ``step`` of the way or less, and note it there; which of
        them moved, (n,).

        A whole step ends a little beyond ``aim``. Where that does not fool, the boundary bends away, and a point in the
        same direction is tried that is as far as would still be nearer. Then the step is halved, as long as it promises
        something: ``gain`` (n,) is what a whole one would gain, as a share of the distance.
        """
        moved = torch.zeros(len(rows), dtype=torch.bool, device=aim.device)
        beyond = step[rows] == 1
        while True:
            left = (~moved & (gain * step[rows] > _LEAST)).nonzero().flatten()
            if not len(left):
                return moved
            now = rows[left]
            start, near = at.x[now], at.best[now]
            size = self.norm.size(near - start)
            way = near + per_row(step[now]) * (aim[left] - near) - start
            reach = size * (1 - CLOSE) / self.norm.size(way).clamp_min(1e-12)
            reach = reach.minimum(1 + (gain[left] / 4).clamp_max(_LOOSE / 2)).where(beyond[left], reach)
            point = (start + per_row(reach) * way).clamp(0.0, 1.0)
            reached = lead(self.judge, point, at.y[now], self.batch, at.examples[now])
            nearer = (reached < 0) & (self.norm.size(point - start) < size)
            at.best[now[nearer]], at.margin[now[nearer]] = point[nearer], reached[nearer]
            moved[left] = nearer
            step[now] *= 1 - 0.5 * (~nearer & ~beyond[left])
            beyond[left] = False

    def _inwards(self, at: _Points, rows: Tensor, normal: Tensor, close: Tensor) -> None:
        """Move the best points of ``rows`` to the boundary on the line to the clean images, in place, as ``close``."""
        at.best[rows], at.margin[rows] = self._search(at, rows, at.crossing(rows, normal), close)

    def _search(self, at: _Points, rows: Tensor, guess: Tensor, close: Tensor | None = None) -> tuple[Tensor, Tensor]:
        leads = at.clean[rows], at.margin[rows]
        return nearest_on_the_line(
            self.judge, at.x[rows], at.best[rows], at.y[rows], self.batch, at.examples[rows], leads, guess, close
        )


@dataclass
class _Points:
    """Clean images and their best points (N, C, H, W), labels, places in the split, and leads at both, (N,).

    By a ``normal`` at the best point the boundary is the plane where <normal, point - best> is the lead there.
    """

    x: Tensor
    best: Tensor
    y: Tensor
    examples: Tensor
    clean: Tensor
    margin: Tensor

    def crossing(self, rows: Tensor, normal: Tensor) -> Tensor:
        """The share of the way to the best points where it meets the plane, (n,)."""
        return 1 + self.margin[rows] / self._rise(rows, normal)

    def move(self, norm: Norm, rows: Tensor, normal: Tensor) -> Tensor:
        """The least move of the clean images onto the plane, (n, C, H, W)."""
        return to_plane(norm, self.x[rows], normal, -self.margin[rows] - self._rise(rows, normal))

    def _rise(self, rows: Tensor, normal: Tensor) -> Tensor:
        return (normal * (self.best[rows] - self.x[rows])).flatten(1).sum(1)
