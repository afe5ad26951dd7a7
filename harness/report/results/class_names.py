"""What the classes of a record's data are called."""

from __future__ import annotations

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.records import Record
from epsbench.harness.report.results.units import visible


def class_names(record: Record) -> tuple[str, ...]:
    """The names of all classes, in their order: the record's, else those of a built-in data set; empty for neither."""
    names = record.evaluation.get("class_names")
    if isinstance(names, list) and names:
        return tuple(visible(str(name)) for name in names)
    data = record.cell["data"]
    return DATASETS[data].class_names if isinstance(data, str) and data in DATASETS else ()


def class_name(names: tuple[str, ...], index: int) -> str:
    """The name of a class; its number where that is not known."""
    return names[index] if 0 <= index < len(names) else str(index)


def all_class_names(record: Record, classes: int) -> tuple[str, ...]:
    """What the classes of a record's data are called; all by their numbers where some have no name."""
    names = class_names(record)
    return names[:classes] if len(names) >= classes else tuple(map(str, range(classes)))
