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
TYPES = {"data": str, "augmentation": str, "norm": str, "eps": str, "seed": int}
NAMED = ("model", "defense", "attack")
GOES_WITHOUT_SAYING = {"steps": 1, "restarts": 1}
"""Parameters a label always shows unless they have this value: they decide how strong an attack is."""


def canonical(value: Any) -> str:
    """A JSON-able value as one string, the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


class Names:
    """Short labels for the cells of one set: a name, and of its parameters those that tell its uses apart."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        uses: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
        for cell in cells:
            for kind in NAMED:
                if kind in cell:
                    uses[kind, cell[kind]["name"]][canonical(cell[kind])] = cell[kind]
        self._varying = {
            use: {
                key for key in set().union(*forms.values()) if len({canonical(f.get(key)) for f in forms.values()}) > 1
            }
            for use, forms in uses.items()
        }

    def label(self, kind: str, named: Mapping[str, Any]) -> str:
        """``"pgd(steps=40)"``: the name, the parameters that vary over the set, and the number of steps."""
        varying = self._varying.get((kind, named["name"]), set())
        shown = [
            f"{visible(key)}={scalar(value)}"
            for key, value in named.items()
            if key != "name" and (key in varying or (key in GOES_WITHOUT_SAYING and value != GOES_WITHOUT_SAYING[key]))
        ]
        return visible(str(named["name"])) + (f"({', '.join(shown)})" if shown else "")

    def trained(self, cell: Cell) -> str:
        """What decided a cell's weights: data, model, defense, augmentation and seed."""
        return ", ".join([*self._trained(cell), f"seed {scalar(cell['seed'])}"])

    def cell(self, cell: Cell) -> str:
        """One line that says which cell this is."""
        parts = self._trained(cell)
        if "attack" in cell:
            parts.append(f"{self.label('attack', cell['attack'])} {norm_name(cell['norm'])} ε {scalar(cell['eps'])}")
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
        f"{path}: cell.{key}: not {'a whole number' if kind is int else 'a string'}; {remedy}"
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
