"""What each part of an ensemble of attacks adds: the robust accuracy after it, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.drawing.table import ASIDE, NEEDED, Column, Entry, Table, fold
from epsbench.harness.report.results.apart import SETTING, settings_by_cell
from epsbench.harness.report.results.cells import finite, passes
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import (
    ABSENT,
    data_name,
    defense_name,
    duration,
    norm_name,
    number,
    percent,
    percent_range,
    scalar,
)

CAPTION = (
    "Each part attacks the images that are robust under the parts before it. After it: the share of all test images "
    "that are still classified correctly, with the 95 % interval. Passes: forward passes without a gradient."
)
FOLDED = frozenset({"data", SETTING, "seed"})


def parts_table(results: Results) -> Table | None:
    """One line a part of every measured ensemble; None where there is none."""
    records = [record for record in results.robustness if record.status == "ok" and record.parts]
    if not records:
        return None
    columns = (
        Column("data", weight=ASIDE),
        Column("model", label=True),
        Column("defense", label=True, weight=NEEDED),
        Column(SETTING, weight=NEEDED),
        Column("seed", weight=ASIDE),
        Column("attack", label=True),
        Column("ε", True, weight=NEEDED),
        Column("part", label=True, weight=NEEDED),
        *(Column(title, True) for title in ("tried on", "fooled")),
        Column("after it", True, weight=NEEDED),
        *(Column(title, True) for title in ("gradients/image", "passes/image", "time")),
    )
    rows: list[tuple[Entry, ...]] = []
    starts: list[int] = []
    setting = settings_by_cell(results.robustness)
    for record in _by_eps(records):
        starts.append(len(rows))
        rows += list(_lines(record, results, setting(record.cell)))
    table = Table(
        "What each part of an attack adds", columns, tuple(rows), CAPTION, tuple(_notes(records, results)),
        frozenset(starts),
    )  # fmt: skip
    return fold(table, FOLDED)


def _by_eps(records: list[Record]) -> list[Record]:
    """The records in their order, those that differ in ε alone together and by ascending ε."""
    groups: dict[str, int] = {}
    for record in records:
        groups.setdefault(_but_for_eps(record), len(groups))
    return sorted(records, key=lambda record: (groups[_but_for_eps(record)], Fraction(record.cell["eps"])))


def _but_for_eps(record: Record) -> str:
    return canonical({key: value for key, value in record.cell.items() if key != "eps"})


def _lines(record: Record, results: Results, setting: str) -> Iterator[tuple[Entry, ...]]:
    cell, names = record.cell, results.names
    head = [
        data_name(cell["data"]),
        names.label("model", cell["model"]),
        defense_name(names.label("defense", cell["defense"])),
        setting,
        scalar(cell["seed"]),
        f"{names.attack(cell)} {norm_name(cell['norm'])}",
        scalar(cell["eps"]),
    ]
    before = record.metrics.get("clean_accuracy")
    last = before.value if before else None
    for index, part in enumerate(record.parts):
        after = part.robust_accuracy
        low, high = after.low, after.high
        interval = percent_range(low, high) if low is not None and high is not None else ""
        lost = round((last - after.value) * (after.n or 0)) if last is not None else None
        last = after.value
        yield (
            *(Entry(text if index == 0 else "") for text in head),
            Entry(part.name),
            Entry(f"{part.attacked:,}"),
            Entry(ABSENT if lost is None else f"{lost:,}"),
            Entry(percent(after.value), interval),
            Entry(number(finite(part.cost, "gradients_per_image"))),
            Entry(number(passes(part.cost) / part.attacked) if part.attacked else ABSENT),
            Entry(duration(finite(part.cost, "seconds"))),
        )


def _notes(records: list[Record], results: Results) -> Iterator[str]:
    for record in records:
        if record.adapted:
            changes = ", ".join(f"{key}: {scalar(value)}" for key, value in record.adapted.items())
            where = f"{results.names.attack(record.cell)} on {data_name(record.cell['data'])}"
            yield f"{where}: adapted to few classes ({changes})"
