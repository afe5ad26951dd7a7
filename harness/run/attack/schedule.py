"""Which rows (ε, restart, example) to attack, and in what order. No tensors, only bookkeeping."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# An image counts as inside a ball up to this distance outside, or up to this part of its radius where that is above 1.
# Rounding x + δ to float32 moves a pixel by at most 6e-8, and an L2 norm adds up many of those; a sum in float32 is off
# by a part of itself. Verdicts depend on it: a bisection gives an image to the smallest ball it is in.
ROUNDING = 1e-6

_LARGEST = 0.5 / ROUNDING  # of what is allowed beyond a radius, half of one: under L0 one change more is outside

Numbers = TypeVar("Numbers", "Tensor", np.ndarray)


def in_ball(size: Numbers, eps: Numbers) -> Numbers:
    """Whether changes of these sizes count as inside the balls of radius ``eps``, bool; both (N,)."""
    return size <= eps + ROUNDING * eps.clip(1.0, _LARGEST)


class Each:
    """Every ε on its own; a restart begins only for an example that withstood the one before.

    A row is one integer, ``(ε·restarts + restart)·examples + example``. A heap of rows therefore runs through the ε in
    order, and each ε is finished and recorded as early as possible. ``fooled`` and
    ``settled`` have shape (ε, examples).
    """

    def __init__(self, eps: Sequence[float], examples: int, restarts: int, price: float = 1.0) -> None:
        """``eps`` ascend. ``price`` is the cost of an attack that fools, as a share of one that does not."""
        self.eps, self.eps_count = np.array(eps), len(eps)
        self.examples, self.restarts, self.price = examples, restarts, price
        self.fooled = np.zeros((self.eps_count, examples), dtype=bool)
        self.settled = np.zeros((self.eps_count, examples), dtype=bool)
        self._waiting: list[int] = []
        self._push(self._first_rows().tolist())

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, count: int) -> np.ndarray:
        """The next rows, at most ``count``, as int64."""
        rows = [heapq.heappop(self._waiting) for _ in range(min(count, len(self._waiting)))]
        return np.array(rows, dtype=np.int64)

    def coming(self, count: int) -> np.ndarray:
        """The rows that `take` gives next, at most ``count``, as int64; they stay in the queue."""
        # A row of a heap is smaller than its two children: only those of rows that are next can be next, too.
        rows: list[int] = []
        near = [(self._waiting[0], 0)] if self._waiting else []
        while near and len(rows) < count:
            row, at = heapq.heappop(near)
            rows.append(row)
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(self._waiting):
                    heapq.heappush(near, (self._waiting[child], child))
        return np.array(rows, dtype=np.int64)

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ε index, restart and example of each row."""
        pair, example = np.divmod(rows, self.examples)
        eps_index, restart = np.divmod(pair, self.restarts)
        return eps_index, restart, example

    def settle(self, rows: np.ndarray, fooled: np.ndarray, size: np.ndarray) -> None:
        """Take the judge's verdicts on finished rows, whose perturbations have these sizes; new rows join the queue."""
        eps_index, restart, example = self.split(rows)
        over = fooled | (restart == self.restarts - 1)
        self._push((rows[~over] + self.examples).tolist())
        self._decide(eps_index[over], example[over], fooled[over], size[over])

    def rows_done(self) -> int:
        """How many rows are over or not needed any more. A row in flight is not asked, nor about those before it."""
        _, restart, _ = self.split(np.array(self._waiting, dtype=np.int64))
        return int(self.settled.sum()) * self.restarts + int(restart.sum())

    def rows_before(self, rows: np.ndarray) -> int:
        """How many rows were over before these ones of the same examples began."""
        return int(self.split(rows)[1].sum())

    def finished(self, eps_index: int) -> bool:
        """Whether every example has its verdict at this ε."""
        return bool(self.settled[eps_index].all())

    def _first_rows(self) -> np.ndarray:
        everyone = np.arange(self.examples)
        return np.concatenate([self._row(np.full_like(everyone, e), everyone) for e in range(self.eps_count)])

    def _decide(self, eps_index: np.ndarray, example: np.ndarray, fooled: np.ndarray, size: np.ndarray) -> None:
        """The final verdict on these examples at these ε."""
        self.fooled[eps_index, example] = fooled
        self.settled[eps_index, example] = True

    def _row(self, eps_index: np.ndarray, example: np.ndarray) -> np.ndarray:
        """The first restart of an example at an ε."""
        return eps_index * self.restarts * self.examples + example

    def _push(self, rows: Iterable[int]) -> None:
        for row in rows:
            heapq.heappush(self._waiting, row)


class Nested(Each):
    """From the smallest ε up. The ball of a larger ε contains the image that fooled, so it is not attacked again."""

    def _first_rows(self) -> np.ndarray:
        return np.arange(self.examples)

    def _decide(self, eps_index: np.ndarray, example: np.ndarray, fooled: np.ndarray, size: np.ndarray) -> None:
        for e, i, yes in zip(eps_index, example, fooled, strict=True):
            self.fooled[e:, i] = yes
            self.settled[e : self.eps_count if yes else e + 1, i] = True
        onwards = ~fooled & (eps_index + 1 < self.eps_count)
        self._push(self._row(eps_index[onwards] + 1, example[onwards]).tolist())


class Bisect(Each):
    """The smallest ε that fools, by bisection: about log₂ of the ε are attacked.

    An example that withstands an ε is assumed to withstand every smaller one. An attack of finite strength does not
    promise that. The other direction is exact, as in `Nested`: an image that fools does so at every ε whose ball it
    lies in. The next ε is the one with the least expected cost when all answers are equally likely. An attack that
    fools ends early, so larger ε come first.
    """

    def __init__(self, eps: Sequence[float], examples: int, restarts: int, price: float = 1.0) -> None:
        self.withstood = np.full(examples, -1)
        self.broke = np.full(examples, len(eps))
        self._step = _cheapest_steps(len(eps), price)
        super().__init__(eps, examples, restarts, price)

    def _first_rows(self) -> np.ndarray:
        return self._next(np.arange(self.examples))

    def _next(self, example: np.ndarray) -> np.ndarray:
        untried = self.broke[example] - self.withstood[example] - 1
        return self._row(self.withstood[example] + self._step[untried], example)

    def _decide(self, eps_index: np.ndarray, example: np.ndarray, fooled: np.ndarray, size: np.ndarray) -> None:
        least = size[fooled] - ROUNDING * size[fooled].clip(1.0)
        holding = np.searchsorted(self.eps, least)  # the smallest ball that contains the image
        within = np.minimum(eps_index[fooled], holding)
        # No verdict changes later: an ε that was withstood stays withstood.
        self.broke[example[fooled]] = np.maximum(within, self.withstood[example[fooled]] + 1)
        self.withstood[example[~fooled]] = eps_index[~fooled]
        for i in example:
            self.settled[: self.withstood[i] + 1, i] = True
            self.fooled[self.broke[i] :, i] = True
            self.settled[self.broke[i] :, i] = True
        open_ = example[self.broke[example] - self.withstood[example] > 1]
        self._push(self._next(open_).tolist())


class Every(Each):
    """One ε, and every attempt on every example, whatever the others gave: the nearest point of all is looked for."""

    def __init__(self, examples: int, attempts: int, only: np.ndarray | None = None) -> None:
        """``only`` are the places of the examples that are attacked, (k,) int64; default: all."""
        self._only = np.arange(examples) if only is None else only
        self._left = np.zeros(examples, dtype=np.int64)
        self._left[self._only] = attempts
        super().__init__([np.inf], examples, attempts)

    def settle(self, rows: np.ndarray, fooled: np.ndarray, size: np.ndarray) -> None:
        _, _, example = self.split(rows)
        np.subtract.at(self._left, example, 1)
        self.fooled[0, example] |= fooled
        self.settled[0] = self._left == 0

    def rows_done(self) -> int:
        return int(self.examples * self.restarts - self._left.sum())

    def rows_before(self, rows: np.ndarray) -> int:
        return 0  # each is on its own

    def _first_rows(self) -> np.ndarray:
        return (np.arange(self.restarts)[:, None] * self.examples + self._only).flatten()


def _cheapest_steps(count: int, price: float) -> np.ndarray:
    """For n untried ε in a row, how far up to try next, (count + 1,).

    It minimises the mean cost if the n + 1 answers are equally likely and an attack costs ``price`` where it fools and
    1 where it does not.
    """
    cost, step = np.zeros(count + 1), np.zeros(count + 1, dtype=np.int64)
    for n in range(1, count + 1):
        tried = np.arange(1, n + 1)
        fools, not_ = tried / (n + 1), (n + 1 - tried) / (n + 1)
        costs = fools * (price + cost[tried - 1]) + not_ * (1 + cost[n - tried])
        cost[n], step[n] = costs.min(), 1 + np.argmin(costs)
    return step


CURVES: dict[str, type[Each]] = {"each": Each, "nested": Nested, "bisect": Bisect}
