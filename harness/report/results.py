"""The records of a results folder, ready to be told: checked, current ones apart from superseded, and named."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.registry import built_in_defaults
from epsbench.harness.records import Record, read_records, record_path
from epsbench.harness.report.joining import Conflict, join
from epsbench.harness.report.units import norm_name, scalar, visible

Cell = Mapping[str, Any]

REQUIRED = {
    "robustness": ("data", "model", "defense", "augmentation", "attack", "norm", "eps", "seed"),
    "generation": ("data", "model", "z_dim", "beta", "seed"),
}
REQUIRED_OF_SOURCE = ("model", "defense", "augmentation", "seed")
REQUIRED_OF_START = ("data", *REQUIRED_OF_SOURCE)
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
    "subset": str,
    "source": dict,
    "start": dict,
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
MODEL_AXES = ("model", "defense", "augmentation", "subset", "start")
ATTACKING = frozenset({"attack", "norm", "eps", "early_stop", "curve", "curve_eps", "source"})
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
    return canonical([cell["attack"], cell.get("early_stop", True), *curve(cell), cell.get("source")])


def curve(cell: Cell) -> tuple[str, list[Any]]:
    return cell.get("curve", "each"), cell.get("curve_eps", [])


def way(cell: Cell) -> dict[str, Any]:
    """How a cell's model was made, whatever attacks it, seeds apart: its own, and that of the weights it began with."""
    made = {key: value for key, value in cell.items() if key not in ATTACKING and key != "seed"}
    if "start" in made:
        made["start"] = {key: value for key, value in made["start"].items() if key != "seed"}
    return made


def start_words(axes: Cell) -> str:
    """``"fashion-mnist"``, ``"first-half + trades"``: the training whose weights a model began with, as far as it was
    another than its own."""
    start = axes["start"]
    told = [start[key] for key in ("data", "subset", "augmentation") if key in start and start[key] != axes.get(key)]
    if start["defense"] != axes["defense"]:
        told.append("undefended" if start["defense"]["name"] == "none" else start["defense"]["name"])
    return " + ".join(map(scalar, told)) or "the same training"


class Names:
    """Short labels for the cells of one set: a name, and of its parameters those that tell its uses apart."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        uses: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
        curves: dict[str, set[str]] = defaultdict(set)
        stops: set[bool] = set()
        for cell in cells:
            for held in (cell, cell.get("source", {}), cell.get("start", {})):
                for kind in NAMED:
                    if kind in held:
                        uses[kind, held[kind]["name"]][canonical(held[kind])] = held[kind]
            if "attack" in cell:
                kind_of_curve, eps = curve(cell)
                curves[kind_of_curve].add(canonical(eps))
                stops |= set() if "source" in cell else {cell.get("early_stop", True)}
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
        where both ways are in the set. ``"pgd from smallcnn (second-half)"`` where another model's gradients are
        followed, which never stops early."""
        kind, eps = curve(cell)
        said = [] if kind == "each" else [visible(kind)]
        if kind in self._curves_differ:
            said = [f"{visible(kind)} over ε {' '.join(map(scalar, eps))}"]
        if self._stops_differ and not cell.get("early_stop", True) and "source" not in cell:
            said.append("no early stop")
        label = self.label("attack", cell["attack"], *said)
        return f"{label} from {self.source(cell)}" if "source" in cell else label

    def source(self, cell: Cell) -> str:
        """Whose gradients a cell's attack follows, with the seed of that model where it is not the cell's own."""
        source = cell["source"]
        return self.model(source, *([f"seed {scalar(source['seed'])}"] if source["seed"] != cell["seed"] else []))

    def model(self, axes: Cell, *said: str) -> str:
        """``"smallcnn + pgd-batch (first-half)"``: a model by its axes, seed apart, and what else is to be said; what
        is "none" or "all" is left out."""
        parts = [self.label("model", axes["model"]), self.label("defense", axes["defense"]), axes["augmentation"]]
        named = " + ".join([parts[0], *(scalar(part) for part in parts[1:] if part != "none")])
        begun = [f"from {start_words(axes)}"] if "start" in axes else []
        details = [*(scalar(axes[key]) for key in ("subset",) if key in axes), *begun, *said]
        return f"{named} ({', '.join(details)})" if details else named

    def label(self, kind: str, named: Mapping[str, Any], *said: str) -> str:
        """``"pgd(steps=40)"``: the name, the parameters that vary over the set, the number of steps, what makes a
        model another than its name stands for, and what else is to be said."""
        varying = self._varying.get((kind, named["name"]), set())
        if kind == "model":
            usual = built_in_defaults(kind, str(named["name"]))
            varying = varying | {key for key, value in named.items() if key in usual and value != usual[key]}
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
        parts += [] if cell["augmentation"] == "none" else [f"augmentation {scalar(cell['augmentation'])}"]
        parts += [scalar(cell["subset"])] if "subset" in cell else []
        return [*parts, f"from {start_words(cell)}"] if "start" in cell else parts


@dataclass(frozen=True)
class Results:
    """What a report is made from. ``current`` holds the newest record of every cell, ``superseded`` the rest:
    the same cell measured by an earlier version of an attack, a defense or a model.

    Where the records come from several folders, ``homes`` has the folder of each by its id, and ``conflicts`` the cells
    on which folders disagree."""

    folder: Path
    current: tuple[Record, ...]
    superseded: tuple[Record, ...]
    homes: Mapping[str, Path] = field(default_factory=dict)
    conflicts: tuple[Conflict, ...] = ()

    def home(self, record: Record) -> Path:
        """The folder that a record lies in."""
        return self.homes.get(record.id, self.folder)

    @property
    def robustness(self) -> list[Record]:
        """The records of classifiers attacked along their own gradients."""
        return [record for record in self._classifiers if "source" not in record.cell]

    @property
    def transfer(self) -> list[Record]:
        """The records of classifiers shown images that were made on another."""
        return [record for record in self._classifiers if "source" in record.cell]

    @property
    def _classifiers(self) -> list[Record]:
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
        return list(self.questions)

    @property
    def questions(self) -> dict[str, str]:
        """What each of these suites asks, by its name; empty where its records do not say. The newest words count."""
        told: dict[str, str] = {}
        for record in self.current:
            if record.suite:
                name = visible(record.suite)
                told[name] = visible(record.description) or told.get(name, "")
        return told


def check_cell(results: Path, record: Record) -> list[str]:
    """What is wrong with the cell of a record that reads well otherwise; empty when nothing is."""
    path, remedy = record_path(results, record.id), "delete the file and run the suite again to measure this cell anew"
    cell = record.cell
    task = cell.get("task")
    if not isinstance(task, str) or task not in REQUIRED:
        return [f"{path}: cell.task: {scalar(task)} is none of {', '.join(REQUIRED)}; {remedy}"]
    found = [f"cell.{problem}" for problem in _misfits(cell, REQUIRED[task])]
    if isinstance(source := cell.get("source"), dict):
        found += [f"cell.source.{problem}" for problem in _misfits(source, REQUIRED_OF_SOURCE)]
    if isinstance(start := cell.get("start"), dict):
        found += [f"cell.start.{problem}" for problem in _misfits(start, REQUIRED_OF_START)]
    problems = [f"{path}: {problem}; {remedy}" for problem in found]
    if isinstance(cell.get("eps"), str):
        try:
            Fraction(cell["eps"])
        except (ValueError, ZeroDivisionError):
            problems.append(f"{path}: cell.eps: {cell['eps']!r} is no fraction; {remedy}")
    return problems


def _misfits(cell: Cell, required: Iterable[str]) -> Iterator[str]:
    """What is missing or of the wrong type in a cell, or in the source of one."""
    yield from (f"{key}: is missing" for key in required if key not in cell)
    for kind in NAMED:
        if kind in cell and not (isinstance(cell[kind], dict) and isinstance(cell[kind].get("name"), str)):
            yield f"{kind}: not an object with a name"
    for key, wanted in TYPES.items():
        if key in cell and not isinstance(cell[key], wanted):
            yield f"{key}: not {TYPE_NAMES[wanted]}"


def load_results(*folders: Path) -> Results:
    """Read results folders, as one set where there are several (see `epsbench.harness.report.joining`).

    Raises one `InputError`, with the remedy, when a folder is missing, empty or holds a bad record.
    """
    problems: list[str] = []
    found: list[tuple[Path, Record]] = []
    for folder in {folder.resolve(): folder for folder in folders}.values():
        try:
            found += [(folder, record) for record in _read(folder)]
        except InputError as error:
            problems += error.messages
    if problems:
        raise InputError(problems)
    kept, conflicts = join(found)
    kept.sort(key=lambda held: (held[1].started, held[1].id))
    newest: dict[str, Record] = {}
    for _, record in sorted(kept, key=lambda held: (held[1].finished, held[1].started, held[1].id)):
        newest[canonical(record.cell)] = record
    current = {record.id for record in newest.values()}
    return Results(
        folders[0],
        tuple(record for _, record in kept if record.id in current),
        tuple(record for _, record in kept if record.id not in current),
        {record.id: folder for folder, record in kept},
        tuple(conflict for conflict in conflicts if conflict.record.id in current),
    )


def _read(folder: Path) -> list[Record]:
    """The checked records of one folder."""
    how = f"`epsbench run SUITE --out {folder}` measures a suite into it"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such results folder; {how}")
    records = read_records(folder)
    if not records:
        raise InputError(f"{folder}: holds no records; {how}")
    if problems := [problem for record in records for problem in check_cell(folder, record)]:
        raise InputError(problems)
    return records
