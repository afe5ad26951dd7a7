"""Queries of the victim as CUDA graphs: one launch for all kernels of a query. A graph is for one number of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from epsbench.harness.run.machine.timing import seconds

Query = Callable[..., tuple[Tensor, ...]]
"""From tensors whose first axis is the row, to such tensors."""

FEWEST = 16
"""Rows of the smallest graph. Fewer rows take about as long."""

_WARM_UP = 3  # calls before the capture, so that cuDNN has chosen its kernels and the allocator its blocks


@dataclass(frozen=True)
class Size:
    """How many rows a graph computes, and for how few of them it is still faster than the query without a graph."""

    rows: int
    least: int


class Ladder:
    """A query that is captured for several numbers of rows.

    Fewer rows are computed by the next larger graph. What it computes besides are rows of earlier calls, and is
    dropped. The graphs share their inputs, and the memory of what they compute on the way.
    """

    def __init__(self, query: Query, given: Sequence[Tensor], sizes: Sequence[Size]) -> None:
        """Capture ``query`` for ``sizes``, none of which is larger than ``given`` has rows.

        Raises `RuntimeError` where it cannot be captured: it synchronises, or its work depends on values.
        """
        self.sizes = tuple(sorted(sizes, key=lambda size: size.rows))
        self._inputs = tuple(each.clone() for each in given)
        self._query, pool = query, new_pool()
        # The largest first: the others find room in its memory.
        self._graphs = {size.rows: captured(query, self._first(size.rows), pool) for size in reversed(self.sizes)}

    def _first(self, rows: int) -> tuple[Tensor, ...]:
        return tuple(each[:rows] for each in self._inputs)

    def _size(self, rows: int) -> Size | None:
        return next((size for size in self.sizes if rows <= size.rows), None)

    def serves(self, rows: int) -> bool:
        """Whether so many rows are faster by a graph."""
        size = self._size(rows)
        return size is not None and rows >= size.least

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """What the query gives for N rows, at most as many as the largest graph has. The caller owns the result."""
        rows = len(given[0])
        size = self._size(rows)
        if size is None:
            raise ValueError(f"{rows} rows are more than the {self.sizes[-1].rows} of the largest graph")
        for own, theirs in zip(self._inputs, given, strict=True):
            own[:rows].copy_(theirs)
        return tuple(each[:rows].clone() for each in self._graphs[size.rows]())

    def keep(self, sizes: Sequence[Size]) -> None:
        """Drop the graphs for other numbers of rows than these ``sizes``."""
        self.sizes = tuple(sizes)
        self._graphs = {size.rows: self._graphs[size.rows] for size in sizes}

    def faster(self, device: torch.device, instead: Query | None = None) -> tuple[Size, ...]:
        """The sizes at which a graph is faster than the query without one, and from how many rows on.

        ``instead`` is what would compute the same without these graphs. Left out: the query that was captured.
        """
        other = instead or self._query
        graph = {size.rows: seconds(partial(self, *self._first(size.rows)), device) for size in self.sizes}
        plain = {size.rows: seconds(partial(other, *self._first(size.rows)), device) for size in self.sizes}
        faster, below = [], 0
        for rows in graph:
            least = least_rows(graph[rows], below, plain.get(below, 0.0), rows, plain[rows])
            if least <= rows:
                faster.append(Size(rows, least))
            below = rows
        return tuple(faster)


def least_rows(graph: float, below: int, plain_below: float, rows: int, plain: float) -> int:
    """The fewest rows, more than ``below``, for which a graph of ``rows`` is faster; more than ``rows`` where none is.

    ``graph`` are its seconds, ``plain`` and ``plain_below`` those of the query without a graph for both numbers of
    rows. Between them they are taken to grow evenly.
    """
    if graph >= plain:
        return rows + 1
    if below == 0 or graph < plain_below:
        return below + 1
    return below + 1 + math.floor((rows - below) * (graph - plain_below) / (plain - plain_below))


def steps_down(rows: int) -> tuple[Size, ...]:
    """Numbers of rows for a ladder: ``rows``, and half as many again and again, down to about `FEWEST`."""
    sizes = [Size(rows, 1)]
    while sizes[-1].rows >= 2 * FEWEST:
        sizes.append(Size(sizes[-1].rows // 2, 1))
    return tuple(sizes)


def new_pool() -> Any:
    """Memory that graphs may share. Their results are copied before another one runs."""
    return torch.cuda.graph_pool_handle()


def captured(query: Query, inputs: Sequence[Tensor], pool: Any) -> Callable[[], tuple[Tensor, ...]]:
    """A call that computes ``query`` of what these tensors hold at the time; the next call overwrites what it gives."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            query(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        outputs = query(*inputs)

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return replay
