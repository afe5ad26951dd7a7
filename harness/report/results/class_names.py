"""What the classes of a record's data are called."""

from __future__ import annotations

from epsbench.harness.records import Record
from epsbench.harness.report.results.units import visible


def class_names(record: Record) -> tuple[str, ...]:
    """The names of all classes, in their order; empty where the record holds none."""
    names = record.evaluation.get("class_names")
    return tuple(visible(str(name)) for name in names) if isinstance(names, list) else ()


def class_name(names: tuple[str, ...], index: int) -> str:
    """The name of a class; its number where that is not known."""
    return names[index] if 0 <= index < len(names) else str(index)
