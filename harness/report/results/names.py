"""Short labels for cells: a name, and of its parameters only those that distinguish its uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from epsbench.harness.plan.cell import models_of_record
from epsbench.harness.plan.names.registry import built_in_defaults
from epsbench.harness.records.tables import canonical, varying_by_name
from epsbench.harness.report.results.cells import Cell, curve
from epsbench.harness.report.results.starts import StartLabels
from epsbench.harness.report.results.units import data_name, defense_name, norm_name, parameter, scalar, visible

NAMED = ("model", "defense", "attack")
STRENGTHS = {"steps": 1, "restarts": 1}
"""Parameters that decide how strong an attack is: a label shows them unless they have this value."""


class Names:
    """The labels for one set of cells, which are passed in: what varies over the set is shown."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        uses: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        curves: dict[str, set[str]] = defaultdict(set)
        stops: set[bool] = set()
        models: list[Mapping[str, Any]] = []
        for cell in cells:
            for axes in models_of_record(cell):
                models.append({**_shared(cell), **axes})
                for kind in NAMED:
                    if kind in axes:
                        uses[kind].append(axes[kind])
            if "attack" in cell:
                kind_of_curve, eps = curve(cell)
                curves[kind_of_curve].add(canonical(eps))
                stops |= set() if "source" in cell else {cell.get("early_stop", True)}
        self._start = StartLabels(models)
        self._stops_differ = len(stops) > 1
        self._curves_differ = {curve for curve, lists in curves.items() if len(lists) > 1}
        self._varying = {kind: varying_by_name(tables) for kind, tables in uses.items()}

    def attack(self, cell: Cell) -> str:
        """The label of a cell's attack, such as ``"pgd(steps=40, bisect)"``.

        It shows the kind of the ε curve where that is not "each", with the ε where they differ over the set, and "no
        early stop" where the set holds both kinds. ``"pgd from smallcnn (second-half)"`` follows the gradients of
        another model, and never stops early.
        """
        kind, eps = curve(cell)
        details = [] if kind == "each" else [visible(kind)]
        if kind in self._curves_differ:
            details = [f"{visible(kind)} over ε {' '.join(map(scalar, eps))}"]
        if self._stops_differ and not cell.get("early_stop", True) and "source" not in cell:
            details.append("no early stop")
        label = self.label("attack", cell["attack"], *details)
        return f"{label} from {self.source(cell)}" if "source" in cell else label

    def source(self, cell: Cell) -> str:
        """The model whose gradients a cell's attack follows, with its seed where that is not the cell's own."""
        return " and ".join(
            self.model(
                _shared(cell) | model, *([f"seed {scalar(model['seed'])}"] if model["seed"] != cell["seed"] else [])
            )
            for model in (cell["source"], *cell["source"].get("with", []))
        )

    def model(self, axes: Cell, *details: str) -> str:
        """A model by its axes without the seed, and further details: ``"smallcnn + pgd-batch (first-half)"``.

        What is "none" or "all" is left out.
        """
        parts = [self.label("model", axes["model"]), self.label("defense", axes["defense"]), axes["augmentation"]]
        named = " + ".join([parts[0], *(scalar(part) for part in parts[1:] if part != "none")])
        start = [f"from {self._start(axes)}"] if "start" in axes else []
        shown = [*(scalar(axes[key]) for key in ("subset",) if key in axes), *start, *details]
        return f"{named} ({', '.join(shown)})" if shown else named

    def label(self, kind: str, named: Mapping[str, Any], *details: str) -> str:
        """``"pgd(steps=40)"``: the name, and in brackets some parameters and the further details.

        The parameters shown are those that vary over the set, `STRENGTHS`, and those of a model that differ from the
        defaults of its name. A parameter that is left to the norm or to the attack itself has no value to show.
        """
        varying = self._varying.get(kind, {}).get(str(named["name"]), set())
        if kind == "model":
            usual = built_in_defaults(kind, str(named["name"]))
            varying = varying | {key for key, value in named.items() if key in usual and value != usual[key]}
        shown = [
            f"{visible(key)}={parameter(value)}"
            for key, value in named.items()
            if key != "name"
            and value is not None
            and (key in varying or (key in STRENGTHS and value != STRENGTHS[key]))
        ]
        in_brackets = ", ".join([*shown, *details])
        return visible(str(named["name"])) + (f"({in_brackets})" if in_brackets else "")

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
        parts = [data_name(cell["data"]), self.label("model", cell["model"])]
        if cell["task"] == "generation":
            return [*parts, f"z_dim {scalar(cell['z_dim'])}", f"beta {scalar(cell['beta'])}"]
        defense = defense_name(self.label("defense", cell["defense"]))
        parts.append(defense if defense == "undefended" else f"defense {defense}")
        parts += [] if cell["augmentation"] == "none" else [f"augmentation {scalar(cell['augmentation'])}"]
        parts += [scalar(cell["subset"])] if "subset" in cell else []
        return [*parts, f"from {self._start(cell)}"] if "start" in cell else parts


def _shared(cell: Cell) -> dict[str, Any]:
    """What a source has in common with the model that is tested, so that records do not repeat it."""
    return {key: cell[key] for key in ("data", "training") if key in cell}
