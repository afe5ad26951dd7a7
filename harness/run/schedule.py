"""Which rows (ε, restart, example) are worth attacking, and in what order. No tensors, only bookkeeping."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np


class Schedule:
    """Every ε on its own; a restart is begun only for an example that withstood the one before.

    A row is one integer, ``(ε·restarts + restart)·examples + example``, so that a heap of rows runs
    through the ε in order and an ε is finished, and recorded, as early as can be.
    """

    def __init__(self, eps_count: int, examples: int, restarts: int) -> None:
        self.eps_count, self.examples, self.restarts = eps_count, examples, restarts
        self.fooled = np.zeros((eps_count, examples), dtype=bool)
        self.settled = np.zeros((eps_count, examples), dtype=bool)
        self._waiting: list[int] = list(range(0))
        self._push(self._first_rows())

    def _first_rows(self) -> Iterable[int]:
        for e in range(self.eps_count):
            start = e * self.restarts * self.examples
            yield from range(start, start + self.examples)

    def _push(self, rows: Iterable[int]) -> None:
        for row in rows:
            heapq.heappush(self._waiting, row)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, count: int) -> np.ndarray:
        """The next rows, at most ``count``, as int64."""
        rows = [heapq.heappop(self._waiting) for _ in range(min(count, len(self._waiting)))]
        return np.array(rows, dtype=np.int64)

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ε index, restart and example of each row."""
        pair, example = np.divmod(rows, self.examples)
        eps_index, restart = np.divmod(pair, self.restarts)
        return eps_index, restart, example

    def settle(self, rows: np.ndarray, fooled: np.ndarray) -> None:
        """Take the judge's word on finished rows; what follows from it joins the queue."""
        eps_index, restart, example = self.split(rows)
        self.fooled[eps_index[fooled], example[fooled]] = True
        over = fooled | (restart == self.restarts - 1)
        self._push((rows[~over] + self.examples).tolist())
        self.settled[eps_index[over], example[over]] = True

    def finished(self, eps_index: int) -> bool:
        """Whether every example has its verdict at this ε."""
        return bool(self.settled[eps_index].all())
