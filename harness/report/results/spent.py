"""The time that the records of a report took: training, each model once, and measuring."""

from __future__ import annotations

from collections.abc import Iterable

from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.results.cells import numbers, way


def training_total(records: Iterable[Record]) -> float:
    """Seconds of training. A model that several cells share counts once, and so do its weights under two names."""
    longest: dict[str, float] = {}
    for record in records:
        cell = {key: value for key, value in way(record.cell).items() if key != "evaluation"}
        model = record.training.get("weights_sha256") or canonical([cell, record.cell.get("seed")])
        for seconds in numbers([record.training], "seconds"):
            longest[str(model)] = max(longest.get(str(model), 0.0), seconds)
    return sum(longest.values())


def measuring_total(records: Iterable[Record]) -> float:
    """Seconds of attacks and measures, without training."""
    return sum(map(spent, records))


def spent(record: Record) -> float:
    """The seconds that a record adds to a total. Where one run answered several ε, each states all of its cost."""
    seconds, radii = numbers([record.cost], "seconds"), numbers([record.cost], "radii_of_run")
    return sum(seconds) / max(1.0, *radii, 1.0)
