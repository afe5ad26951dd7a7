"""What the reports read from a cell and from a record: which attack it is, how its model was made, its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from epsbench.harness.records.numbers import finite_number
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.results.units import ABSENT, scalar

Cell = Mapping[str, Any]

MODEL_AXES = ("model", "defense", "augmentation", "subset", "start")
ATTACKING = frozenset({"attack", "norm", "eps", "early_stop", "curve", "curve_eps", "source", "corruption"})
"""The keys of a cell that do not affect its weights: cells that differ in these alone measure the same model."""


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
