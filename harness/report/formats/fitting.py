"""Which columns of a table fit a terminal, and how wide each is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epsbench.harness.report.drawing.table import NEEDED, Table

GAP = 3  # the columns of a terminal between two columns of a table
EDGES = 2  # and beside the table
LONGEST_UNBROKEN = 16  # what a text keeps unbroken where even the needed columns do not fit

Measure = Callable[[Table, int, bool], tuple[int, int]]
"""Table, index of a column, whether intervals stand below their value → its least and its wanted width."""


@dataclass(frozen=True)
class Layout:
    """How a table is set."""

    columns: tuple[int, ...]
    """The indices of the columns that are shown."""
    widths: tuple[int, ...]
    """The width of each."""
    split: bool
    """Whether intervals stand below their value."""
    left_out: tuple[str, ...]
    """The titles of the columns for which there is no room."""


def fitted(table: Table, width: int, measure: Measure) -> Layout:
    """The layout of a table for a terminal of ``width`` columns.

    Intervals stand beside their value where that fits, else below it. Where that does not fit, columns are left out,
    the one of the least weight first, of equal ones the last. Only where the needed ones alone do not fit does a text
    or a number break inside.
    """
    width = width - EDGES
    columns = list(range(len(table.columns)))
    ways = [[measure(table, index, split) for index in columns] for split in (False, True)]
    while True:
        for split, sizes in zip((False, True), ways, strict=True):
            least = [sizes[index][0] for index in columns]
            if sum(least) + GAP * (len(columns) - 1) <= width:
                wanted = [sizes[index][1] for index in columns]
                return _layout(table, columns, _widened(least, wanted, width), split)
        droppable = [index for index in columns if _weight(table, index) < NEEDED]
        if not droppable:
            break
        columns.remove(min(droppable, key=lambda index: (_weight(table, index), -index)))
    sizes = [ways[True][index] for index in columns]
    least = [
        size if table.columns[i].numeric else min(size, LONGEST_UNBROKEN)
        for i, (size, _) in zip(columns, sizes, strict=True)
    ]
    return _layout(table, columns, _narrowed(least, width), True)


def _weight(table: Table, index: int) -> int:
    """A column's weight. The first column, and names that differ between rows, say what a row is about: needed."""
    column = table.columns[index]
    names = {row[index].text for row in table.rows} - {""} if column.label else set()
    return NEEDED if index == 0 or len(names) > 1 else column.weight


def _layout(table: Table, columns: Sequence[int], widths: Sequence[int], split: bool) -> Layout:
    left_out = tuple(column.title for index, column in enumerate(table.columns) if index not in columns)
    return Layout(tuple(columns), tuple(widths), split, left_out)


def _widened(least: Sequence[int], wanted: Sequence[int], width: int) -> list[int]:
    """The widths, each at most as wanted: the room that is left goes to the columns that lack least."""
    widths = list(least)
    room = width - sum(least) - GAP * (len(least) - 1)
    for index in sorted(range(len(least)), key=lambda index: wanted[index] - least[index]):
        more = min(room, max(0, wanted[index] - least[index]))
        widths[index] += more
        room -= more
    return widths


def _narrowed(widths: Sequence[int], width: int) -> list[int]:
    """The widths, the widest ones reduced until they fit."""
    narrowed = list(widths)
    while sum(narrowed) + GAP * (len(narrowed) - 1) > width and max(narrowed) > 1:
        narrowed[narrowed.index(max(narrowed))] -= 1
    return narrowed
