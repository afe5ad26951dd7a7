"""What tells models of one data set, architecture and defense apart: augmentation, subset, start, recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.results.cells import ATTACKING, Cell, way
from epsbench.harness.report.results.differences import differences
from epsbench.harness.report.results.units import ABSENT, data_name

SHOWN = ATTACKING | {"task", "data", "model", "defense", "seed"}
SETTING = "setting"
"""The title of such a column. It is to be folded where no row has a setting."""


def settings_by_cell(records: Iterable[Record], shown: Iterable[str] = ()) -> Callable[[Cell], str]:
    """A function of a classifier's cell: what sets its training apart from those of ``records`` that read the same.

    A dash where nothing does. ``shown`` are further keys of the cell that the reader sees beside it.
    """
    firsts: dict[str, Record] = {}
    for record in records:
        firsts.setdefault(canonical(way(record.cell)), record)
    alike: dict[str, list[str]] = defaultdict(list)
    for key, record in firsts.items():
        alike[canonical([data_name(record.cell["data"]), record.cell["model"], record.cell["defense"]])].append(key)
    named: dict[str, str] = {}
    for keys in alike.values():
        extras = differences([firsts[key] for key in keys], SHOWN.union(shown))
        named |= {key: extra or ABSENT for key, extra in zip(keys, extras, strict=True)}
    return lambda cell: named.get(canonical(way(cell)), ABSENT)
