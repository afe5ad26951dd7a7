"""A table before it has a format: what the terminal, Markdown and HTML all draw from."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

from epsbench.harness.records import Metric
from epsbench.harness.report.leaderboard import STATE_NAMES, Score
from epsbench.harness.report.units import ABSENT, bits, bits_range, percent, percent_range


@dataclass(frozen=True)
class Entry:
    """A table's cell: its text, an interval or other detail beside it, a note, and a state
    (``failed``, ``void``, ``missing``, ``warning``) that formats may colour."""

    text: str
    detail: str = ""
    note: str = ""
    state: str = ""

    @property
    def plain(self) -> str:
        """Text and detail in one line."""
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True)
class Column:
    """A column's title; ``label`` marks names with parameters, which may break before them."""

    title: str
    numeric: bool = False
    label: bool = False


@dataclass(frozen=True)
class Table:
    """``starts`` holds the rows (by index) that begin a group; ``notes`` go below the table."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()
    starts: frozenset[int] = frozenset()


def score_entry(score: Score | None) -> Entry:
    """A score as ``93.0 % [92.5, 93.5]``, as ``≤ 12.0 %`` where it is a bound, or as the state that it is in."""
    if score is None or score.value is None:
        state = "missing" if score is None else score.state
        return Entry(
            STATE_NAMES["missing"] if score is None else STATE_NAMES[score.state],
            "",
            score.note if score else "",
            state,
        )
    text = ("≤ " if score.bound else "") + percent(score.value)
    note = "; ".join(filter(None, [_spread(score), score.note]))
    spread = "" if score.sd is None else f"±{100 * score.sd:.1f}"
    detail = f"{spread} {percent_range(score.low, score.high)}".strip()
    return Entry(text, detail, note, "warning" if score.note else "")


def _spread(score: Score) -> str:
    if score.seeds < 2:
        return ""
    return f"{score.seeds} seeds" + (f", sd {100 * score.sd:.1f}" if score.sd is not None else "")


def bits_entry(metric: Metric | None) -> Entry:
    """A metric in bits per dimension with its interval; a dash where it was not measured."""
    return (
        Entry(ABSENT, "", "", "missing")
        if metric is None
        else Entry(bits(metric.value), bits_range(metric.low, metric.high))
    )


def fold(table: Table, titles: Container[str]) -> Table:
    """The table without those of the titled columns that say the same in every row; its caption says it once."""
    same = {
        index: table.rows[0][index].plain
        for index, column in enumerate(table.columns)
        if column.title in titles and len({row[index] for row in table.rows}) == 1
    }
    if not same:
        return table
    said = ", ".join(f"{table.columns[index].title} {text}" for index, text in same.items() if text != ABSENT)
    return replace(
        table,
        columns=tuple(column for index, column in enumerate(table.columns) if index not in same),
        rows=tuple(tuple(entry for index, entry in enumerate(row) if index not in same) for row in table.rows),
        caption=f"Throughout: {said}. {table.caption}" if said else table.caption,
    )


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one level, keys joined by dots."""
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows |= flat(value, f"{name}.")
        else:
            rows[name] = value
    return rows
