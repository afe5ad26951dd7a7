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
    width -= EDGES
    weights = [_weight(table, index) for index in range(len(table.columns))]
    sizes = [[measure(table, index, split) for index in range(len(weights))] for split in (False, True)]
    needed = [sum(least for least, _ in ones) + GAP * (len(ones) - 1) for ones in sizes]
    leaving = sorted(range(len(weights)), key=lambda index: (weights[index], -index))
    gone: set[int] = set()
    for index in [*leaving, None]:
        columns = [column for column in range(len(weights)) if column not in gone] if min(needed) <= width else []
        for split, total in zip((False, True), needed, strict=True):
            if columns and total <= width:
                least, wanted = zip(*(sizes[split][column] for column in columns), strict=True)
                return _layout(table, columns, _widened(least, wanted, width), split)
        if index is None or weights[index] >= NEEDED:
            break
        gone.add(index)
        needed = [total - ones[index][0] - GAP for total, ones in zip(needed, sizes, strict=True)]
    columns = [column for column in range(len(weights)) if column not in gone]
    kept = [
        sizes[True][column][0] if table.columns[column].numeric else min(sizes[True][column][0], LONGEST_UNBROKEN)
        for column in columns
    ]
    return _layout(table, columns, _narrowed(kept, width), True)


def _weight(table: Table, index: int) -> int:
    """A column's weight. The first column, and names that differ between rows, say what a row is about: needed."""
    column = table.columns[index]
    names = {row[index].text for row in table.rows} - {""} if column.label else set()
    return NEEDED if index == 0 or len(names) > 1 else column.weight


def _layout(table: Table, columns: Sequence[int], widths: Sequence[int], split: bool) -> Layout:
    shown = set(columns)
    left_out = tuple(column.title for index, column in enumerate(table.columns) if index not in shown)
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
    room = width - GAP * (len(widths) - 1)
    most = max(widths, default=1)
    while most > 1 and sum(min(one, most) for one in widths) > room:
        most -= 1
    return [min(one, most) for one in widths]
