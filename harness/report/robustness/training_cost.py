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
    plain = {
        key(row): _seconds(row) for row in rows if row.defense == "none" for key in (_alike, _from_the_same_weights)
    }
    for row in rows:
        seconds, record = _seconds(row), row.records[0]
        epochs, base = record.training.get("epochs"), plain.get(_from_the_same_weights(row), plain.get(_alike(row)))
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


def _alike(row: Row) -> tuple[str, ...]:
    """A key of the rows whose training times are compared: the same but for the defense."""
    return row.model, row.augmentation, row.extra, scalar(row.records[0].cost.get("device", ""))


def _from_the_same_weights(row: Row) -> tuple[str, ...]:
    """As `_alike`, of rows that begin with the same weights.

    The label of a start says what it has otherwise than the row's own defense: those of an undefended start differ.
    """
    same = {key: value for key, value in way(row.records[0].cell).items() if key != "defense"}
    return canonical(same), scalar(row.records[0].cost.get("device", ""))


def _as_given(row: Row) -> bool:
    """Whether the row's models were measured as they were built."""
    return how_trained_record(row.records[0].cell) == AS_GIVEN and any(record.training for record in row.records)


def _seconds(row: Row) -> float:
    """The mean over seeds; 0 for models that were not trained."""
    return mean(training_seconds(row).values() or [0.0])


def _speed(records: Sequence[Record]) -> str:
    known = [speed for speed in numbers([record.training for record in records], "images_per_second") if speed > 0]
    return number(mean(known)) if known else ABSENT
