"""What the reports read from a cell and from a record: which attack it is, how its model was made, its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from epsbench.harness.records.numbers import finite_number
from epsbench.harness.report.results.units import ABSENT, data_name, defense_name, plural, scalar

Cell = Mapping[str, Any]

MODEL_AXES = ("model", "defense", "augmentation", "subset", "start")
ATTACKING = frozenset({"attack", "norm", "eps", "early_stop", "curve", "curve_eps", "source", "corruption"})
"""The keys of a cell that do not affect its weights: cells that differ in these alone measure the same model."""


def canonical(value: Any) -> str:
    """A JSON-able value as one string, the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one level, keys joined by dots."""
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows |= flat(value, f"{name}.")
        else:
            rows[name] = value
    return rows


def varying(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys that do not have the same value in all tables, in their order; a key may be missing in some."""
    tables = list(tables)
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if len({canonical(table.get(key)) for table in tables}) > 1]


@dataclass(frozen=True)
class AttackKey:
    """An attack apart from ε and norm. Cells that differ here are different attacks, in every table and figure."""

    name: str
    """Its name in a suite."""
    entry: str
    """Its name and parameters, as `canonical` writes them."""
    early_stop: bool
    """Whether an image that is fooled is not attacked further."""
    curve: str
    """The kind of its curve over ε, and the ε on it, as `canonical` writes them."""
    source: str
    """The model whose gradients it follows, as `canonical` writes it: ``"null"`` for the attacked model itself."""


def attack_key(cell: Cell) -> AttackKey:
    """The attack of a cell, as a key for scores."""
    attack, early_stop = cell["attack"], cell.get("early_stop", True)
    return AttackKey(
        attack["name"], canonical(attack), early_stop, canonical(curve(cell)), canonical(cell.get("source"))
    )


def model_key(axes: Cell, *details: Any) -> str:
    """What identifies a trained model apart from its seed and recipe; ``details`` are what else does."""
    return canonical([{key: value for key, value in way(axes).items() if key in MODEL_AXES}, *details])


def curve(cell: Cell) -> tuple[str, list[Any]]:
    """The kind of a cell's curve over ε (``"each"``, ``"nested"``, ``"bisect"``) and the ε on it."""
    return cell.get("curve", "each"), cell.get("curve_eps", [])


EACH = canonical(curve({}))
"""The curve of attacks that are run for every ε separately."""


def way(cell: Cell) -> dict[str, Any]:
    """How a cell's model was trained, seeds left out: its own training, and that of the weights it started from."""
    made = {key: value for key, value in cell.items() if key not in ATTACKING and key != "seed"}
    if "start" in made:
        made["start"] = {key: value for key, value in made["start"].items() if key != "seed"}
    return made


def start_label(axes: Cell) -> str:
    """The training that a model's first weights come from, such as ``"fashion-mnist"`` or ``"first-half + trades"``.

    Only what differs from the model's own training is named; with a recipe of its own the defense is, too, so that
    models with different defenses that began alike have one label.
    """
    start, recipe = axes["start"], axes["start"].get("training", {})
    parts = [start[key] for key in ("data", "subset", "augmentation") if key in start and start[key] != axes.get(key)]
    if recipe or start["defense"] != axes["defense"]:
        parts.append(defense_name(start["defense"]["name"]))
    if recipe:
        epochs = recipe.get("epochs")
        same = epochs == axes.get("training", {}).get("epochs")
        parts.append("another recipe" if same or not isinstance(epochs, int) else plural(epochs, "epoch"))
    return " + ".join(map(data_name, parts)) or "the same training"


def numbers(objects: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """The values of a key that are numbers, one for each object that has one."""
    values = (finite_number(values.get(key)) for values in objects)
    return [value for value in values if value is not None]


def finite(values: Mapping[str, Any], key: str) -> float:
    """The value of a key where it is a finite number; else 0."""
    return finite_number(values.get(key)) or 0.0


def passes(cost: Mapping[str, Any]) -> float:
    """How many forward passes without a gradient a cost has."""
    return max(0.0, finite(cost, "forwards") - finite(cost, "backwards"))


def distinct_texts(objects: Iterable[Mapping[str, Any]], key: str) -> str:
    """The different values of a key as text, joined by semicolons; a dash stands for a missing one."""
    return "; ".join(dict.fromkeys(scalar(values.get(key, ABSENT)) for values in objects))
