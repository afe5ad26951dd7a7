"""The records of a results folder, ready to be told: checked, current ones apart from superseded, and named."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.records import Record, read_records, record_path
from harness.report.units import norm_name, scalar, visible

Cell = Mapping[str, Any]

REQUIRED = {
    "robustness": ("data", "model", "defense", "augmentation", "attack", "norm", "eps", "seed"),
    "generation": ("data", "model", "z_dim", "beta", "seed"),
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "data": str,
    "augmentation": str,
    "norm": str,
    "eps": str,
    "seed": int,
    "z_dim": int,
    "beta": (int, float),
    "evaluation": dict,
    "early_stop": bool,
    "curve": str,
    "curve_eps": list,
}
TYPE_NAMES: dict[type | tuple[type, ...], str] = {
    str: "a string",
    int: "a whole number",
    (int, float): "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
NAMED = ("model", "defense", "attack")
ATTACKING = frozenset({"attack", "norm", "eps", "early_stop", "curve", "curve_eps"})
"""What of a cell has no part in its weights: cells that differ in these alone measure the same model."""
GOES_WITHOUT_SAYING = {"steps": 1, "restarts": 1}
"""Parameters a label always shows unless they have this value: they decide how strong an attack is."""


def canonical(value: Any) -> str:
    """A JSON-able value as one string, the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def attack_key(cell: Cell) -> str:
    """What an attack is, ε and norm apart: its parameters, early stopping, and how its curve over ε comes about.

    Cells that differ here are different attacks, in every table and figure.
    """
    return canonical([cell["attack"], cell.get("early_stop", True), *_curve(cell)])


def _curve(cell: Cell) -> tuple[str, list[Any]]:
    return cell.get("curve", "each"), cell.get("curve_eps", [])


class Names:
    """Short labels for the cells of one set: a name, and of its parameters those that tell its uses apart."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        uses: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
        curves: dict[str, set[str]] = defaultdict(set)
        stops: set[bool] = set()
        for cell in cells:
            for kind in NAMED:
                if kind in cell:
                    uses[kind, cell[kind]["name"]][canonical(cell[kind])] = cell[kind]
            if "attack" in cell:
                curve, eps = _curve(cell)
                curves[curve].add(canonical(eps))
                stops.add(cell.get("early_stop", True))
        self._stops_differ = len(stops) > 1
        self._curves_differ = {curve for curve, lists in curves.items() if len(lists) > 1}
        self._varying = {
            use: {
                key for key in set().union(*forms.values()) if len({canonical(f.get(key)) for f in forms.values()}) > 1
            }
            for use, forms in uses.items()
        }

    def attack(self, cell: Cell) -> str:
        """``"pgd(steps=40, bisect)"``: the attack's label with what else `attack_key` holds, where it is not the
        default: how its curve comes about, with its ε where those differ over the set, and that nothing stops early,
        where both ways are in the set."""
        curve, eps = _curve(cell)
        said = [] if curve == "each" else [visible(curve)]
        if curve in self._curves_differ:
            said = [f"{visible(curve)} over ε {' '.join(map(scalar, eps))}"]
        if self._stops_differ and not cell.get("early_stop", True):
            said.append("no early stop")
        return self.label("attack", cell["attack"], *said)

    def label(self, kind: str, named: Mapping[str, Any], *said: str) -> str:
        """``"pgd(steps=40)"``: the name, the parameters that vary over the set, the number of steps, and what else
        is to be said."""
        varying = self._varying.get((kind, named["name"]), set())
        shown = [
            f"{visible(key)}={scalar(value)}"
            for key, value in named.items()
            if key != "name" and (key in varying or (key in GOES_WITHOUT_SAYING and value != GOES_WITHOUT_SAYING[key]))
        ]
        details = ", ".join([*shown, *said])
        return visible(str(named["name"])) + (f"({details})" if details else "")

    def trained(self, cell: Cell) -> str:
        """What decided a cell's weights: data, model, defense, augmentation and seed."""
        return ", ".join([*self._trained(cell), f"seed {scalar(cell['seed'])}"])

    def cell(self, cell: Cell) -> str:
        """One line that says which cell this is."""
        parts = self._trained(cell)
        if "attack" in cell:
            parts.append(f"{self.attack(cell)} {norm_name(cell['norm'])} ε {scalar(cell['eps'])}")
        return ", ".join([*parts, f"seed {scalar(cell['seed'])}"])

    def _trained(self, cell: Cell) -> list[str]:
        parts = [scalar(cell["data"]), self.label("model", cell["model"])]
        if cell["task"] == "generation":
            return [*parts, f"z_dim {scalar(cell['z_dim'])}", f"beta {scalar(cell['beta'])}"]
        parts.append(f"defense {self.label('defense', cell['defense'])}")
        return parts if cell["augmentation"] == "none" else [*parts, f"augmentation {scalar(cell['augmentation'])}"]


@dataclass(frozen=True)
class Results:
    """What a report is made from. ``current`` holds the newest record of every cell, ``superseded`` the rest:
    the same cell measured by an earlier version of an attack, a defense or a model."""

    folder: Path
    current: tuple[Record, ...]
    superseded: tuple[Record, ...]

    @property
    def robustness(self) -> list[Record]:
        return [record for record in self.current if record.cell["task"] == "robustness"]

    @property
    def generation(self) -> list[Record]:
        return [record for record in self.current if record.cell["task"] == "generation"]

    @cached_property
    def names(self) -> Names:
        return Names(record.cell for record in self.current)

    @property
    def suites(self) -> list[str]:
        """The suites the records come from, in the order of their first record."""
        return list(dict.fromkeys(visible(record.suite) for record in self.current if record.suite))


def check_cell(results: Path, record: Record) -> list[str]:
    """What is wrong with the cell of a record that reads well otherwise; empty when nothing is."""
    path, remedy = record_path(results, record.id), "delete the file and run the suite again to measure this cell anew"
    cell = record.cell
    task = cell.get("task")
    if not isinstance(task, str) or task not in REQUIRED:
        return [f"{path}: cell.task: {scalar(task)} is none of {', '.join(REQUIRED)}; {remedy}"]
    problems = [f"{path}: cell.{key}: is missing; {remedy}" for key in REQUIRED[task] if key not in cell]
    problems += [
        f"{path}: cell.{kind}: not an object with a name; {remedy}"
        for kind in NAMED
        if kind in cell and not (isinstance(cell[kind], dict) and isinstance(cell[kind].get("name"), str))
    ]
    problems += [
        f"{path}: cell.{key}: not {TYPE_NAMES[kind]}; {remedy}"
        for key, kind in TYPES.items()
        if key in cell and not isinstance(cell[key], kind)
    ]
    if isinstance(cell.get("eps"), str):
        try:
            Fraction(cell["eps"])
        except (ValueError, ZeroDivisionError):
            problems.append(f"{path}: cell.eps: {cell['eps']!r} is no fraction; {remedy}")
    return problems


def load_results(folder: Path) -> Results:
    """Read a results folder. Raises `InputError`, with the remedy, when it is missing, empty or holds a bad record."""
    how = f"`epsbench run SUITE --out {folder}` measures a suite into it"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such results folder; {how}")
    records = read_records(folder)
    if not records:
        raise InputError(f"{folder}: holds no records; {how}")
    if problems := [problem for record in records for problem in check_cell(folder, record)]:
        raise InputError(problems)
    newest: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: (record.finished, record.started, record.id)):
        newest[canonical(record.cell)] = record
    kept = {record.id for record in newest.values()}
    return Results(
        folder,
        tuple(record for record in records if record.id in kept),
        tuple(record for record in records if record.id not in kept),
    )
