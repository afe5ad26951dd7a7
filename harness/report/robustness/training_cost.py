"""What training a classifier costs: one line a way of training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import mean

from epsbench.harness.plan.training_text import AS_GIVEN, how_trained_record
from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.drawing.table import ASIDE, NEEDED, USUAL, Column, Entry, Table, fold
from epsbench.harness.report.results.cells import numbers, way
from epsbench.harness.report.results.units import ABSENT, defense_name, duration, number, scalar
from epsbench.harness.report.robustness.leaderboard import Board, Row

FOLDED = frozenset({"data", "model", "augmentation", "setting", "trains", "precision", "device"})
NONE = {"name": "none"}
CAPTION = (
    "The time of training and validation, without the checks for overfitting; means over seeds. × undefended: relative "
    "to the same model without a defense."
)


def training_seconds(row: Row) -> dict[object, float]:
    """The seconds of a row's trainings by seed; weights that were not trained here have none."""
    by_seed: dict[object, float] = {}
    for record in row.records:
        for seconds in numbers([record.training], "seconds"):
            if 0 < seconds < math.inf:
                by_seed.setdefault(record.cell["seed"], seconds)
    return by_seed


def training_table(boards: Sequence[Board]) -> Table | None:
    """The cost of each way of training, for every data set with at least two; None where there is none."""
    columns = (
        Column("data", weight=ASIDE),
        *(Column(title, label=True, weight=NEEDED) for title in ("model", "defense")),
        *(
            Column(title, weight=ASIDE if title == "trains" else USUAL)
            for title in ("augmentation", "setting", "trains")
        ),
        *(Column(title, True) for title in ("an epoch", "training", "× undefended", "images/s")),
        *(Column(title, weight=ASIDE) for title in ("precision", "device")),
    )
    rows: list[tuple[Entry, ...]] = []
    starts: list[int] = []
    shown: set[str] = set()
    for board in boards:  # the boards of two norms have the same trainings
        trained = [row for row in board.rows if training_seconds(row) or _as_given(row)]
        if len(trained) > 1 and board.data not in shown:
            shown.add(board.data)
            starts.append(len(rows))
            rows += list(_lines(board.data, sorted(trained, key=_seconds)))
    if not rows:
        return None
    return fold(
        Table("What training a classifier costs", columns, tuple(rows), CAPTION, starts=frozenset(starts)), FOLDED
    )


def _lines(data: str, rows: Sequence[Row]) -> Iterator[tuple[Entry, ...]]:
    undefended = {_undefended(row): _seconds(row) for row in rows if row.defense == "none"}
    for row in rows:
        seconds, record = _seconds(row), row.records[0]
        epochs, base = record.training.get("epochs"), undefended.get(_undefended(row))
        whole = isinstance(epochs, int) and epochs > 0
        yield (
            *(
                Entry(text)
                for text in (data, row.model, defense_name(row.defense), row.augmentation, row.extra or ABSENT)
            ),
            Entry(how_trained_record(record.cell) or ABSENT),
            Entry(duration(seconds / epochs) if whole and isinstance(epochs, int) else ABSENT),
            Entry(duration(seconds) if seconds else ABSENT),
            Entry(f"{seconds / base:.3g} ×" if base and seconds else ABSENT),
            Entry(_speed(row.records)),
            Entry(scalar(record.training.get("precision", ABSENT))),
            Entry(scalar(record.cost.get("device", ABSENT))),
        )


def _undefended(row: Row) -> tuple[str, ...]:
    """A key of the row's model without its defense, and of the device: the same for rows whose times are compared.

    Weights to begin with that were trained with the row's own defense are then those of a training without it.
    """
    cell = way(row.records[0].cell)
    own, start = cell["defense"], cell.get("start")
    if start and start["defense"] == own:
        cell["start"] = {**start, "defense": NONE}
    return canonical({**cell, "defense": NONE}), scalar(row.records[0].cost.get("device", ""))


def _as_given(row: Row) -> bool:
    """Whether the row's models were measured as they were built."""
    return how_trained_record(row.records[0].cell) == AS_GIVEN and any(record.training for record in row.records)


def _seconds(row: Row) -> float:
    """The mean over seeds; 0 for models that were not trained."""
    return mean(training_seconds(row).values() or [0.0])


def _speed(records: Sequence[Record]) -> str:
    known = [speed for speed in numbers([record.training for record in records], "images_per_second") if speed > 0]
    return number(mean(known)) if known else ABSENT
