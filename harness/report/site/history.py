"""How the number of a cell changed over commits: records of the same settings in several folders and versions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from epsbench.harness.records import Record, read_records
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.results.units import bits, bits_range, percent, percent_range, plural, visible
from epsbench.harness.report.site.history_figures import NUMBERS, commit, history_figures
from epsbench.harness.report.site.pages import Cell, Page, Section

PATH = "history.html"
MOST_CELLS = 500
CAPTION = (
    "Cells that were measured more than once, oldest first: the commit of the repository (its own, else epsbench's), "
    "and the number with its 95 % interval. Intervals that do not overlap are marked."
)


def history_page(folders: Sequence[Path]) -> Page:
    """Every cell with more than one measurement, one line a measurement."""
    groups: dict[str, dict[tuple[str, str], Record]] = defaultdict(dict)
    for folder in folders:
        for record in read_records(folder):
            groups[canonical(record.cell)][record.finished, record.id] = record
    several = {key: _ordered(group.values()) for key, group in groups.items() if len(group) > 1}
    names = Names(record.cell for group in groups.values() for record in group.values())
    rows = tuple(line for group in list(several.values())[:MOST_CELLS] for line in _lines(group, names))
    lead = (f"{plural(len(several), 'cell')} of {len(groups):,} measured more than once.",)
    heads = ("cell", "commit", "finished", "status", "number", "change")
    figures = tuple(history_figures(list(several.values()), names))
    section = Section("Measurements", heads, rows, CAPTION, figures)
    return Page(PATH, "History", lead, sections=(section,) if rows else ())


def _ordered(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.finished, record.id))


def _lines(group: Sequence[Record], names: Names) -> Iterable[tuple[Cell, ...]]:
    before: Record | None = None
    for index, record in enumerate(group):
        cell = Cell(names.cell(record.cell) if index == 0 else "")
        status = Cell(record.status, state="" if record.status == "ok" else record.status)
        finished = Cell(visible(record.finished)[:16].replace("T", " "))
        yield cell, Cell(commit(record)), finished, status, _number(record), _change(before, record)
        before = record if record.status == "ok" else before


def _number(record: Record) -> Cell:
    name = NUMBERS.get(str(record.cell.get("task")), "")
    metric = record.metrics.get(name)
    if metric is None or record.status != "ok":
        return Cell("–", state="missing")
    if name == "test_bpd":
        return Cell(bits(metric.value), bits_range(metric.low, metric.high))
    return Cell(percent(metric.value), percent_range(metric.low, metric.high))


def _change(before: Record | None, record: Record) -> Cell:
    name = NUMBERS.get(str(record.cell.get("task")), "")
    old, new = before.metrics.get(name) if before is not None else None, record.metrics.get(name)
    if old is None or new is None or record.status != "ok":
        return Cell("")
    shown = f"{new.value - old.value:+.3f}" if name == "test_bpd" else f"{100 * (new.value - old.value):+z.1f}"
    apart = False
    if old.low is not None and old.high is not None and new.low is not None and new.high is not None:
        apart = new.low > old.high or new.high < old.low
    return Cell(shown, "intervals apart" if apart else "", state="warning" if apart else "")
