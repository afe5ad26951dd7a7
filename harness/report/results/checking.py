"""Whether the cell of a record has what a report reads from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from epsbench.harness.records import Record, record_path
from epsbench.harness.report.results.cells import Cell
from epsbench.harness.report.results.names import NAMED
from epsbench.harness.report.results.units import scalar

REQUIRED = {
    "robustness": ("data", "model", "defense", "augmentation", "attack", "norm", "eps", "seed"),
    "generation": ("data", "model", "z_dim", "beta", "seed"),
}
REQUIRED_OF_SOURCE = ("model", "defense", "augmentation", "seed")
REQUIRED_OF_START = ("data", *REQUIRED_OF_SOURCE)
TYPES: dict[str, type | tuple[type, ...]] = {
    "data": (str, dict),
    "augmentation": str,
    "norm": str,
    "eps": str,
    "seed": int,
    "z_dim": int,
    "beta": (int, float),
    "evaluation": dict,
    "training": dict,
    "early_stop": bool,
    "curve": str,
    "curve_eps": list,
    "subset": str,
    "source": dict,
    "start": dict,
    "corruption": dict,
    "randomness": dict,
}
TYPE_NAMES: dict[type | tuple[type, ...], str] = {
    (str, dict): "a name or an object",
    str: "a string",
    int: "a whole number",
    (int, float): "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def check_cell(results: Path, record: Record) -> list[str]:
    """The problems of a readable record's cell, one message each; empty where there is none."""
    path, remedy = record_path(results, record.id), "delete the file and run the suite again to measure this cell anew"
    cell = record.cell
    task = cell.get("task")
    if not isinstance(task, str) or task not in REQUIRED:
        return [f"{path}: cell.task: {scalar(task)} is none of {', '.join(REQUIRED)}; {remedy}"]
    misfits = [f"cell.{misfit}" for misfit in _misfits(cell, REQUIRED[task])]
    if isinstance(source := cell.get("source"), dict):
        misfits += [f"cell.source.{misfit}" for misfit in _misfits(source, REQUIRED_OF_SOURCE)]
        further = source.get("with", [])
        if not isinstance(further, list) or not all(isinstance(each, dict) for each in further):
            misfits.append("cell.source.with: is no list of objects")
        else:
            misfits += [f"cell.source.with: {misfit}" for each in further
                        for misfit in _misfits(each, REQUIRED_OF_SOURCE)]  # fmt: skip
    if isinstance(start := cell.get("start"), dict):
        misfits += [f"cell.start.{misfit}" for misfit in _misfits(start, REQUIRED_OF_START)]
    problems = [f"{path}: {misfit}; {remedy}" for misfit in misfits]
    if isinstance(cell.get("eps"), str):
        try:
            Fraction(cell["eps"])
        except (ValueError, ZeroDivisionError):
            problems.append(f"{path}: cell.eps: {cell['eps']!r} is no fraction; {remedy}")
    return problems


def _misfits(axes: Cell, required: Iterable[str]) -> Iterator[str]:
    """What is missing or of the wrong type in a cell, or in its source or start."""
    yield from (f"{key}: is missing" for key in required if key not in axes)
    for kind in NAMED:
        if kind in axes and not (isinstance(axes[kind], dict) and isinstance(axes[kind].get("name"), str)):
            yield f"{kind}: is not an object with a name"
    for key, wanted in TYPES.items():
        if key in axes and not isinstance(axes[key], wanted):
            yield f"{key}: is not {TYPE_NAMES[wanted]}"
