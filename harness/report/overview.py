"""The tables about the records themselves: findings and failures, the environment, and all cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from epsbench.harness.plan.training_text import how_trained_record
from epsbench.harness.records import Record
from epsbench.harness.records.tables import flat
from epsbench.harness.report.drawing.table import Column, Entry, Table
from epsbench.harness.report.results.cells import finite
from epsbench.harness.report.results.joining import Conflict
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import (
    ABSENT,
    and_list,
    bits,
    bits_range,
    duration,
    plural,
    scalar,
    visible,
)
from epsbench.harness.report.robustness.scores import score_entry, score_of

CONFLICT = " Conflict: several folders measured the same cell with different results."


def findings_table(results: Results) -> Table | None:
    """Failed and void cells and the warnings of the audits; None where there are none.

    Cells with the same finding share a line.
    """
    lines: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in results.current:
        for what, why in _remarks(record):
            lines[what, why].append(record)
    for conflict in results.conflicts:
        lines["conflict", _disagreement(conflict)].append(conflict.record)
    if not lines:
        return None
    order = ("failed", "void", "conflict", "warning")
    rows = tuple(
        (
            Entry(what, state="warning" if what == "conflict" else what),
            Entry(_some([results.names.cell(record.cell) for record in records], "cell")),
            Entry(why),
            Entry(_some([record.id for record in records], "id"), cells=tuple(record.id for record in records)),
        )
        for (what, why), records in sorted(lines.items(), key=lambda line: order.index(line[0][0]))
    )
    columns = (Column("what"), Column("cell"), Column("why"), Column("id"))
    caption = (
        "Failed: the cell raised an error. Void: an audit shows that the number means nothing. Warning: the number "
        "counts, but read the reason first."
    ) + (CONFLICT if results.conflicts else "")
    return Table("Findings and failures", columns, rows, caption)


def _disagreement(conflict: Conflict) -> str:
    folders = and_list([visible(str(folder)) for folder in conflict.others])
    return f"{folders} measured something else; shown is the newest record, of {visible(str(conflict.shown))}"


def _remarks(record: Record) -> Iterator[tuple[str, str]]:
    """The remarks on a record: ("failed" | "void" | "warning", why)."""
    if record.failure is not None:
        yield "failed", visible(record.failure.text)
    elif record.status != "ok" and not any(finding.severity == "void" for finding in record.findings):
        yield record.status, "no reason recorded"
    for finding in record.findings:
        evidence = ", ".join(f"{visible(key)} {scalar(value)}" for key, value in finding.evidence.items())
        remark = f"{visible(finding.code)}: {visible(finding.message)}"
        yield finding.severity, f"{remark} ({evidence})" if evidence else remark


def _some(items: list[str], noun: str, most: int = 3) -> str:
    """The first few of many, and how many more there are."""
    more = f"; and {plural(len(items) - most, f'more {noun}')}" if len(items) > most else ""
    return "; ".join(items[:most]) + more


def environment_table(results: Results) -> Table | None:
    """The hardware and software of the records; a setting that differs between records shows every value."""
    values: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for record in results.current:
        for key, value in flat(record.environment).items():
            if not (isinstance(value, str) and "\n" in value):
                values[visible(key)][scalar(value)] += 1
    if not values:
        return None
    rows = tuple((Entry(key), _seen(counts, len(results.current))) for key, counts in values.items())
    caption = "Where the records differ, each value is followed by the number of cells it holds for."
    return Table("Environment", (Column("what"), Column("value")), rows, caption)


def _seen(counts: dict[str, int], total: int, most: int = 3) -> Entry:
    if len(counts) == 1 and sum(counts.values()) == total:
        return Entry(next(iter(counts)))
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    text = "; ".join(f"{value} ({plural(count, 'cell')})" for value, count in ordered[:most])
    return Entry(text + (f"; and {len(ordered) - most} more" if len(ordered) > most else ""), state="warning")


def long_environment(results: Results) -> dict[str, str]:
    """The environment's texts of several lines, such as torch's own report, each different one once."""
    texts: dict[str, str] = {}
    for record in results.current:
        for key, value in flat(record.environment).items():
            if isinstance(value, str) and "\n" in value and value not in texts.values():
                texts[visible(key) if visible(key) not in texts else f"{visible(key)} {len(texts) + 1}"] = value
    return {key: visible(value, keep="\n\t") for key, value in texts.items()}


def cells_table(results: Results) -> Table:
    """Every current cell: its id, its axes in full, and its number."""
    columns = (
        Column("id"),
        Column("status"),
        Column("cell"),
        Column("result", True),
        Column("training"),
        Column("finished"),
    )
    rows = tuple(
        (
            Entry(record.id, cells=(record.id,)),
            Entry(record.status, state="" if record.status == "ok" else record.status),
            Entry(results.names.cell(record.cell)),
            _result(record),
            Entry(_trained(record)),
            Entry(visible(record.finished)[:19]),
        )
        for record in results.current
    )
    left_out = plural(len(results.superseded), "record")
    notes = (f"{left_out} of earlier code or weights left out",) if results.superseded else ()
    return Table("Cells", columns, rows, notes=notes)


def _result(record: Record) -> Entry:
    """The one number of a cell: test bits per dimension, or robust accuracy."""
    absent = Entry(ABSENT, state="missing")
    if record.status != "ok":
        return absent
    if record.cell["task"] != "generation":
        return score_entry(score_of(record))
    bound = record.metrics.get("test_bpd")
    return absent if bound is None else Entry(bits(bound.value), bits_range(bound.low, bound.high))


def _trained(record: Record) -> str:
    training = record.training
    parts = [how] if training and (how := how_trained_record(record.cell)) else []
    if (seconds := finite(training, "seconds")) > 0:
        parts.append(duration(seconds))
    if isinstance(parameters := training.get("parameters"), int):
        parts.append(plural(parameters, "parameter"))
    return ", ".join(parts)
