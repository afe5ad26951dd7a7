"""A table before it has a format: text, Markdown and HTML are all written from it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace

from epsbench.harness.report.results.units import ABSENT


@dataclass(frozen=True)
class Entry:
    """One cell of a table."""

    text: str
    """The value."""
    detail: str = ""
    """An interval, or what else stands beside the value."""
    note: str = ""
    """A remark that HTML shows under the pointer."""
    state: str = ""
    """``failed``, ``void``, ``missing``, ``warning`` or empty; formats may colour it."""

    cells: tuple[str, ...] = ()
    """The ids of the cells behind it, which HTML links to."""

    @property
    def plain(self) -> str:
        """Text and detail in one line."""
        return f"{self.text} {self.detail}".strip()


ASIDE, USUAL, NEEDED = 0, 100, 1000
"""Weights of columns: of what few ask for, of most, and of those without which the others mean nothing."""


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    title: str
    """What stands above the column."""
    numeric: bool = False
    """Whether it holds numbers, which are set to the right."""
    label: bool = False
    """Whether it holds names with parameters, which may break before them."""
    weight: int = USUAL
    """How much it matters: where a terminal has no room for all columns, those of the least weight are left out."""


@dataclass(frozen=True)
class Table:
    """A table with its title, caption and notes."""

    title: str
    """What stands above the table."""
    columns: tuple[Column, ...]
    """The columns, from left to right."""
    rows: tuple[tuple[Entry, ...], ...]
    """The rows; each has one entry a column."""
    caption: str = ""
    """How to read the table."""
    notes: tuple[str, ...] = ()
    """Remarks on single rows, below the table."""
    starts: frozenset[int] = frozenset()
    """The rows, by index, that begin a group."""


def fold(table: Table, titles: Container[str]) -> Table:
    """The table without those of the titled columns that are equal in every row; its caption names their value."""
    firsts = [row for index, row in enumerate(table.rows) if not table.starts or index in table.starts]
    same = {
        index: table.rows[0][index].plain
        for index, column in enumerate(table.columns)
        if column.title in titles
        and len({row[index] for row in firsts}) == 1
        # The other rows of a group leave out what its first row says.
        and {row[index] for row in table.rows} <= {table.rows[0][index], Entry("")}
    }
    if not same:
        return table
    shared = ", ".join(f"{table.columns[index].title} {text}" for index, text in same.items() if text != ABSENT)
    return replace(
        table,
        columns=tuple(column for index, column in enumerate(table.columns) if index not in same),
        rows=tuple(tuple(entry for index, entry in enumerate(row) if index not in same) for row in table.rows),
        caption=f"Same in every row: {shared}. {table.caption}" if shared else table.caption,
    )
