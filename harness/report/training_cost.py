"""What trainings took: one line a way of training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import mean

from epsbench.harness.records import Record
from epsbench.harness.report.leaderboard import Board, Row
from epsbench.harness.report.table import Column, Entry, Table, fold
from epsbench.harness.report.units import ABSENT, duration, number, scalar

FOLDED = frozenset({"data", "model", "augmentation", "setting", "epochs", "precision", "device"})
CAPTION = (
    "Seconds of training and validation, without what watching for overfitting took; means over seeds. × undefended: "
    "against the same model without a defense."
)


def training_seconds(row: Row) -> dict[object, float]:
    """The seconds a row's trainings took, by seed; weights that were not trained here have none."""
    found: dict[object, float] = {}
    for record in row.records:
        seconds = record.training.get("seconds")
        if isinstance(seconds, int | float) and 0 < seconds < math.inf:
            found.setdefault(record.cell["seed"], float(seconds))
    return found


def training_table(boards: Sequence[Board]) -> Table | None:
    """What each way of training cost, for every data set with more than one; None where there is none."""
    columns = (
        *(Column(title, label=title in ("model", "defense")) for title in ("data", "model", "defense")),
        *(Column(title) for title in ("augmentation", "setting")),
        *(Column(title, True) for title in ("epochs", "an epoch", "training", "× undefended", "images/s")),
        *(Column(title) for title in ("precision", "device")),
    )
    rows: list[tuple[Entry, ...]] = []
    starts: list[int] = []
    told: set[str] = set()
    for board in boards:  # two norms tell of the same trainings
        trained = [row for row in board.rows if training_seconds(row)]
        if len(trained) > 1 and board.data not in told:
            told.add(board.data)
            starts.append(len(rows))
            rows += list(_lines(board.data, sorted(trained, key=_seconds)))
    if not rows:
        return None
    return fold(Table("What a training costs", columns, tuple(rows), CAPTION, starts=frozenset(starts)), FOLDED)


def _lines(data: str, rows: Sequence[Row]) -> Iterator[tuple[Entry, ...]]:
    plain = {_alike(row): _seconds(row) for row in rows if row.defense == "none"}
    for row in rows:
        seconds, record = _seconds(row), row.records[0]
        epochs, base = record.training.get("epochs"), plain.get(_alike(row))
        whole = isinstance(epochs, int) and epochs > 0
        yield (
            *(Entry(text) for text in (data, row.model, row.defense, row.augmentation, row.extra or ABSENT)),
            Entry(str(epochs) if whole else ABSENT),
            Entry(duration(seconds / epochs) if whole and isinstance(epochs, int) else ABSENT),
            Entry(duration(seconds)),
            Entry(f"{seconds / base:.3g} ×" if base else ABSENT),
            Entry(_speed(row.records)),
            Entry(scalar(record.training.get("precision", ABSENT))),
            Entry(scalar(record.cost.get("device", ABSENT))),
        )


def _alike(row: Row) -> tuple[str, ...]:
    """What trainings share whose times compare, whatever the defense."""
    return row.model, row.augmentation, row.extra, scalar(row.records[0].cost.get("device", ""))


def _seconds(row: Row) -> float:
    return mean(training_seconds(row).values())


def _speed(records: Sequence[Record]) -> str:
    speeds = [record.training.get("images_per_second") for record in records]
    known = [speed for speed in speeds if isinstance(speed, int | float) and speed > 0]
    return number(mean(known)) if known else ABSENT
