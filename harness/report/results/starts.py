"""Labels for the trainings that models begin with, of some cells: different trainings have different labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from epsbench.harness.plan.start_differences import start_differences
from epsbench.harness.records.tables import canonical, flat, varying
from epsbench.harness.report.results.cells import Cell
from epsbench.harness.report.results.units import data_name, defense_name, plural, scalar


def start_label(axes: Cell) -> str:
    """The training that a model's first weights come from, such as ``"fashion-mnist"`` or ``"first-half + trades"``.

    It names what `start_differences` has; of the defense only the name, and of a recipe the epochs.
    """
    different = start_differences(axes)
    defense, recipe = different.pop("defense", None), different.pop("training", None)
    parts = [*different.values(), *([defense_name(defense["name"])] if defense else [])]
    if recipe:
        epochs = recipe.get("epochs")
        parts.append(plural(epochs, "epoch") if isinstance(epochs, int) else "another recipe")
    return " + ".join(map(data_name, parts)) or "the same training"


class StartLabels:
    """`start_label`, with what tells those apart that would be called the same: ``"18 epochs (learning_rate 0.2)"``."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        """``cells`` are those that a reader compares; cells without a start among them are ignored."""
        alike: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        for cell in cells:
            if "start" in cell:
                different = flat(start_differences(cell))
                alike[start_label(cell)][canonical(different)] = different
        self._varying = {label: varying(group.values()) for label, group in alike.items()}

    def __call__(self, axes: Cell) -> str:
        """The label of the start of a model with these axes."""
        label, different = start_label(axes), flat(start_differences(axes))
        shown = [key for key in self._varying.get(label, ()) if key in different]
        details = ", ".join(f"{scalar(key.rpartition('.')[2])} {scalar(different[key])}" for key in shown)
        return f"{label} ({details})" if details else label
