"""Labels for the trainings that models begin with, of some cells: different trainings have different labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from epsbench.harness.report.results.cells import Cell, canonical, flat, start_label, varying
from epsbench.harness.report.results.units import scalar


class StartLabels:
    """`start_label`, with what tells those apart that would be called the same: ``"18 epochs (learning_rate 0.2)"``."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        """``cells`` are those that a reader compares; cells without a start among them are ignored."""
        alike: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        for cell in cells:
            if "start" in cell:
                changes = _changes(cell)
                alike[start_label(cell)][canonical(changes)] = changes
        self._varying = {label: varying(group.values()) for label, group in alike.items()}

    def __call__(self, axes: Cell) -> str:
        """The label of the start of a model with these axes."""
        label, changes = start_label(axes), _changes(axes)
        shown = [key for key in self._varying.get(label, ()) if key in changes]
        details = ", ".join(f"{scalar(key.rpartition('.')[2])} {scalar(changes[key])}" for key in shown)
        return f"{label} ({details})" if details else label


def _changes(axes: Cell) -> dict[str, Any]:
    """What the first training has otherwise than the model's own, keys joined by dots.

    With a recipe of its own it has its defense there too, as `start_label` does.
    """
    start, missing = {key: value for key, value in axes["start"].items() if key != "seed"}, object()
    own = flat({key: value for key, value in axes.items() if key != "defense" or "training" not in start})
    return {key: value for key, value in flat(start).items() if own.get(key, missing) != value}
