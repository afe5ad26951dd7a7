"""Bounds on what a cell cost: as it is, relative to another cell, or relative to the same cell of a baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from epsbench.harness.errors import InputError
from epsbench.harness.records import Metric, Record, find_record, read_records
from epsbench.harness.records.numbers import finite_number
from epsbench.harness.records.tables import canonical

if TYPE_CHECKING:
    from epsbench.harness.plan.expand import Cell, Expectation

MACHINE_FREE = frozenset({"gradients_per_image", "peak_bytes", "floor_share"})
"""The costs of a record that can be bounded as they are; times can be bounded relative to others."""

OF_TRAINING = {"training_seconds": "seconds", "training_images_per_second": "images_per_second"}
"""Costs of training, by their names in a record's ``training``. A classifier's record has them only there."""


def cost(record: Record, name: str) -> float | None:
    """A cost of a record; None where it is no finite number."""
    return finite_number(record.cost.get(name, record.training.get(OF_TRAINING.get(name, ""))))


@dataclass(frozen=True)
class References:
    """What costs are relative to."""

    results: Path
    """The results folder that is checked."""
    baseline: Mapping[str, Record] | None = None
    """The newest record of each cell of the baseline's folder, by the cell's settings; None without a baseline."""
    _same: dict[str, Record | None] = field(default_factory=dict)
    _by_rest: dict[tuple[str, str], dict[str, list[Cell]]] = field(default_factory=dict)
    """By expectation and cost: the cells that it can be relative to, grouped by their other settings."""

    @classmethod
    def read(cls, results: Path, baseline: Path | None) -> References:
        """Raises `InputError` for a baseline without records."""
        if baseline is None:
            return cls(results)
        records = sorted(read_records(baseline), key=lambda record: record.finished)
        if not records:
            raise InputError(f"--baseline: {baseline} holds no records; give the results folder of an earlier run")
        return cls(results, {canonical(record.cell): record for record in records})

    def ratio(self, record: Record, name: str, cell: Cell, expectation: Expectation) -> Metric | str:
        """A cost over that of what its bound is relative to, or why there is none."""
        other = self._other(cell, name, expectation)
        if isinstance(other, str):
            return other
        if other.status != "ok":
            return f"what it is relative to is {other.status}"
        value, reference = cost(record, name), cost(other, name)
        if value is None or not reference:
            return f"{name} is not recorded here, or is missing or 0 in what it is relative to"
        return Metric(value=value / reference)

    def _other(self, cell: Cell, name: str, expectation: Expectation) -> Record | str:
        if name not in expectation.others:
            if self.baseline is None:
                return "it is relative to a baseline: give its results folder with --baseline DIR"
            return self.baseline.get(canonical(cell.canonical()), "the baseline has no cell with these settings")
        axes, cells = expectation.others[name]
        place = expectation.label, name
        if place not in self._by_rest:
            groups = self._by_rest[place] = defaultdict(list)
            for other in cells:
                groups[_without(other, axes)].append(other)
        matching = self._by_rest[place].get(_without(cell, axes), [])
        if len(matching) != 1:
            return f"{len(matching) or 'no'} cells differ from this one only in {', '.join(axes)}, and one is needed"
        identity = matching[0].id
        if identity not in self._same:
            self._same[identity] = find_record(self.results, identity)
        return self._same[identity] or "the cell that it is relative to is not measured"


def _without(cell: Cell, axes: tuple[str, ...]) -> str:
    """A cell's settings without some axes, the same for cells that differ in these alone."""
    return canonical({key: value for key, value in cell.canonical().items() if key not in axes})
