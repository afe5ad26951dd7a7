"""The tables of a report: leaderboard, findings, environment, cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from epsbench.harness.records import Record
from epsbench.harness.report.joining import Conflict
from epsbench.harness.report.leaderboard import Board, Score
from epsbench.harness.report.results import Results
from epsbench.harness.report.table import Column, Entry, Table, bits_entry, flat, score_entry
from epsbench.harness.report.units import ABSENT, duration, enumerate_words, norm_name, plural, scalar, visible

CURVES = {
    "nested": "an image fooled at an ε counts as fooled at every larger one.",
    "bisect": "the smallest ε that fools an image is found by bisection: the image counts as fooled at every larger "
    "one, and one that withstands an ε is taken to withstand every smaller one.",
}
"""How a curve of each kind is to be read; of the kind "each" there is nothing to say."""

OVER_SEEDS = "Of several seeds: the mean, ± the standard deviation, and the Student-t interval of the mean."
CONFLICT = " Conflict: the same cell, trained or measured apart, with other verdicts."

TRANSFERRED = "Images made on another model are told in the transfer tables; they are no part of the worst case."


def leaderboard_table(board: Board) -> Table:
    """The leaderboard, one line a model and ε: an ε's attacks, then the worst case over them."""
    names = board.names
    extra = any(row.extra for row in board.rows)
    augmented = any(row.augmentation != "none" for row in board.rows)
    columns = [Column("rank", True), Column("model", label=True), Column("defense", label=True)]
    columns += [Column("augmentation")] if augmented else []
    columns += [Column("setting")] if extra else []
    columns += [
        Column("clean", True),
        Column("ε", True),
        *(Column(name, True) for name in names),
        Column("worst case", True),
    ]
    lines: list[tuple[Entry, ...]] = []
    starts: list[int] = []
    notes: dict[str, None] = {}
    for row in board.rows:
        starts.append(len(lines))
        head = [Entry(str(row.rank or ABSENT)), Entry(row.model), Entry(row.defense)]
        head += [Entry(row.augmentation)] if augmented else []
        head += [Entry(row.extra)] if extra else []
        head.append(score_entry(row.clean))
        for index, (eps, spelled) in enumerate(board.eps):
            scores = [
                score_entry(row.attacks[eps, name]) if name in board.attacks[eps] else Entry(ABSENT, state="missing")
                for name in names
            ]
            worst = score_entry(row.worst[eps])
            lines.append((*(head if index == 0 else [Entry("")] * len(head)), Entry(spelled), *scores, worst))
            if row.worst[eps].note:
                notes[f"{row.label}, ε {spelled}: worst case {row.worst[eps].note}"] = None
    notes |= dict.fromkeys(_seeds(board))
    return Table(
        board_title(board), tuple(columns), tuple(lines), board_caption(board), tuple(notes), frozenset(starts)
    )


def _seeds(board: Board) -> Iterator[str]:
    """How many seeds a row stands for: once where all stand for as many."""
    counts = {len(row.seeds) for row in board.rows}
    if len(counts) == 1 and counts != {1}:
        yield f"every row is the mean over {counts.pop()} seeds"
        return
    yield from (f"{row.label}: the mean over {len(row.seeds)} seeds" for row in board.rows if len(row.seeds) > 1)


def board_title(board: Board) -> str:
    return f"Robust accuracy on {board.data}, {norm_name(board.norm)}"


def board_caption(board: Board) -> str:
    """How to read a leaderboard."""
    n = f" of {board.examples:,} test images" if board.examples else ""
    said = [
        f"Share{n} classified rightly, with 95 % intervals; ε in pixel units [0, 1]. Worst case: right under "
        "every attack at that ε, image by image. Sorted by the worst case at "
        f"{_ranked_by(board)}; rows that the intervals do not tell apart share a rank. A failed or void cell makes "
        "the worst case an upper bound (≤), and the row takes no rank.",
        *([OVER_SEEDS] if any(len(row.seeds) > 1 for row in board.rows) else []),
        *([TRANSFERRED] if board.transferred else []),
        *(f"{curve.capitalize()}: {told}" for curve, told in CURVES.items() if curve in board.curves),
    ]
    return " ".join(said)


def _ranked_by(board: Board) -> str:
    spelled = board.ranked[1]
    return f"the largest ε ({spelled})" if board.ranked == board.eps[-1] else f"ε = {spelled}, the largest all share"


def findings_table(results: Results) -> Table | None:
    """Failed and void cells and every warning of an audit: what a reader must know before trusting a number.

    Cells of one model often share a finding; those stand in one line.
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
            Entry(_some([record.id for record in records], "id")),
        )
        for (what, why), records in sorted(lines.items(), key=lambda line: order.index(line[0][0]))
    )
    columns = (Column("what"), Column("cell"), Column("why"), Column("id"))
    caption = (
        "Failed: the cell raised. Void: an audit says its number means nothing. Warning: the number stands; read why."
    ) + (CONFLICT if results.conflicts else "")
    return Table("Findings and failures", columns, rows, caption)


def _disagreement(conflict: Conflict) -> str:
    folders = enumerate_words([visible(str(folder)) for folder in conflict.others])
    return f"{folders} measured something else; shown is the newest record, of {visible(str(conflict.shown))}"


def _remarks(record: Record) -> Iterator[tuple[str, str]]:
    """What there is to say about a record: ("failed" | "void" | "warning", why)."""
    if record.failure is not None:
        yield "failed", f"{visible(record.failure.type)}: {visible(record.failure.message)}"
    elif record.status != "ok" and not any(finding.severity == "void" for finding in record.findings):
        yield record.status, "no reason recorded"
    for finding in record.findings:
        evidence = ", ".join(f"{visible(key)} {scalar(value)}" for key, value in finding.evidence.items())
        said = f"{visible(finding.code)}: {visible(finding.message)}"
        yield finding.severity, f"{said} ({evidence})" if evidence else said


def _some(items: list[str], noun: str, most: int = 3) -> str:
    """The first few of many, and how many more there are."""
    more = f"; and {plural(len(items) - most, f'more {noun}')}" if len(items) > most else ""
    return "; ".join(items[:most]) + more


def environment_table(results: Results) -> Table | None:
    """What the records were measured with; a setting that differs between records shows every value."""
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
    """The environment's texts of several lines (torch's own report), each distinct one once."""
    texts: dict[str, str] = {}
    for record in results.current:
        for key, value in flat(record.environment).items():
            if isinstance(value, str) and "\n" in value and value not in texts.values():
                texts[visible(key) if visible(key) not in texts else f"{visible(key)} {len(texts) + 1}"] = value
    return {key: visible(value, keep="\n\t") for key, value in texts.items()}


def cells_table(results: Results) -> Table:
    """Every current cell: its id, what it is in full, and its number."""
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
            Entry(record.id),
            Entry(record.status, state="" if record.status == "ok" else record.status),
            Entry(results.names.cell(record.cell)),
            _result(record),
            Entry(_trained(record.training)),
            Entry(visible(record.finished)[:19]),
        )
        for record in results.current
    )
    notes = (
        (f"{plural(len(results.superseded), 'record')} of earlier versions of the code left out",)
        if results.superseded
        else ()
    )
    return Table("Cells", columns, rows, notes=notes)


def _result(record: Record) -> Entry:
    if record.status != "ok":
        return Entry(ABSENT, state="missing")
    if record.cell["task"] == "generation":
        return bits_entry(record.metrics.get("test_bpd"))
    metric = record.metrics.get("robust_accuracy")
    return score_entry(Score("ok", metric.value, metric.low, metric.high, metric.n) if metric else None)


def _trained(training: dict[str, Any]) -> str:
    parts = [plural(training["epochs"], "epoch")] if isinstance(training.get("epochs"), int) else []
    if isinstance(seconds := training.get("seconds"), int | float):
        parts.append(duration(seconds))
    if isinstance(parameters := training.get("parameters"), int):
        parts.append(plural(parameters, "parameter"))
    return ", ".join(parts)
