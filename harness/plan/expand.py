"""From the parts of a suite to its cells and expectations: the matrix, then excludes, then includes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.assemble import Versions, generation_cell, robustness_cell, with_curves
from epsbench.harness.plan.axes.base import written_values
from epsbench.harness.plan.axes.budgets import with_budget
from epsbench.harness.plan.axes.corruptions import settled, too_small
from epsbench.harness.plan.axes.matching import matching, shown
from epsbench.harness.plan.axes.radii import unusable_radii
from epsbench.harness.plan.axes.recipes import with_changes
from epsbench.harness.plan.axes.sources import resolved, untrained
from epsbench.harness.plan.axes.starts import Start, identity, misfits
from epsbench.harness.plan.axes.tables import Point
from epsbench.harness.plan.bounds import Bound, Cost
from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.plan.names.registry import make, name_with_parameters
from epsbench.harness.plan.schema import (
    MOST_CELLS,
    Part,
    RobustnessPart,
    SuitePart,
)

Problems = list[str]


@dataclass(frozen=True)
class Expectation:
    """Bounds on the metrics of some cells, for ``epsbench check``."""

    task: str
    """``robustness`` or ``generation``."""
    where: dict[str, Any]
    """The suite's table that chose the cells; empty: every cell."""
    bounds: dict[str, Bound]
    """Metric → its bound."""
    strict: bool
    """Judge the value itself, not its 95 % interval."""
    cells: tuple[Cell, ...]
    """The cells whose records must keep the bounds."""
    label: str
    """Where the suite says so, for messages: ``"robustness.expect[0] (attack = pgd)"``."""
    others: Mapping[str, tuple[tuple[str, ...], tuple[Cell, ...]]] = field(default_factory=dict)
    """Cost → the axes in which the cell that it is relative to differs, and the cells with the wanted values there."""


def expand(part: SuitePart, base: Path) -> tuple[tuple[Cell, ...], tuple[Expectation, ...]]:
    """The cells of a part, in the order of its axes, and its expectations.

    Raises one `InputError` with every problem of the part, each beginning with its key path.
    """
    problems: Problems = []
    matrix = {axis: _values(part, part.matrix, axis, base) for axis in part.axes}
    _few_enough(f"{part.task}.matrix", matrix)
    points = _points(part, matrix, base)
    points = _excluded(part, points, base, problems)
    _include(part, points, matrix, base, problems)
    if not points and not problems:
        problems.append(f"{part.task}.exclude: leaves no cell; exclude less")
    problems += [
        *unusable_radii(part, points, base),
        *_misfits(part, points, base),
        *misfits(part.task, part.data, points),
        *_empty_subsets(part, points),
        *too_small(part.task, part.data, points),
    ]
    problems += untrained(written_values(part, "source"), points)
    if problems:
        raise InputError(problems)
    build = robustness_cell if isinstance(part, RobustnessPart) else generation_cell
    code = Versions(part, base)
    if problems := code.unbuildable(points):
        raise InputError(problems)
    cells = with_curves(tuple(build(part, point, code) for point in points))  # type: ignore[arg-type]
    expectations = _expectations(part, points, cells, base, problems)
    if problems:
        raise InputError(problems)
    return cells, expectations


def _few_enough(path: str, axes: Mapping[str, list[Any]], already: int = 0) -> None:
    """Raise `InputError` when these axes, with the cells there are already, make more cells than a part may have."""
    cells = math.prod(map(len, axes.values()))
    if already + cells > MOST_CELLS:
        factors = " × ".join(f"{len(values):,} {axis}" for axis, values in axes.items() if len(values) > 1)
        raise InputError(
            f"{path}: makes {cells:,} cells ({factors}); a part has at most {MOST_CELLS:,}: "
            "shorten an axis, or split the suite"
        )


def _values(part: SuitePart, source: Part, axis: str, base: Path) -> list[Any]:
    given = getattr(source, axis)
    if axis == "training":
        changes = given or [part.defaults[axis]]
        return [with_changes(part.training, each, f"{part.task}.training") for each in changes]
    if given:
        return list(given)
    default = part.defaults[axis]
    return [name_with_parameters(axis, default, base) if axis in KINDS else default]


def _excluded(part: SuitePart, points: list[Point], base: Path, problems: Problems) -> list[Point]:
    dropped: set[int] = set()
    for position, where in enumerate(part.exclude):
        path = f"{part.task}.exclude[{position}]"
        if not where:
            problems.append(f"{path}: is empty and would exclude every cell; name at least one axis")
        dropped |= set(matching(where, points, path, base, problems))
    return [point for position, point in enumerate(points) if position not in dropped]


def _points(part: SuitePart, axes: Mapping[str, list[Any]], base: Path) -> list[Point]:
    """Every combination of the values of these axes, as it is measured.

    Values that mean nothing beside others are left out, so equal cells are one.
    """
    points = (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))
    settled_points = (with_budget(settled(point), base) if part.task == "robustness" else point for point in points)
    return resolved(settled_points, part.data)


def _include(
    part: SuitePart, points: list[Point], matrix: Mapping[str, list[Any]], base: Path, problems: Problems
) -> None:
    known = {identity(point, part.data) for point in points}
    for position, include in enumerate(part.include):
        path = f"{part.task}.include[{position}]"
        if not include.model_fields_set:
            problems.append(f"{path}: is empty; name at least one axis")
            continue
        axes = {
            axis: _values(part, include, axis, base) if getattr(include, axis) else values
            for axis, values in matrix.items()
        }
        open_axes = [axis for axis, values in axes.items() if len(values) > 1 and axis not in include.model_fields_set]
        problems += [
            f"{path}: leaves {axis} open, and the matrix has {len(axes[axis])} values of it; name {axis} here too"
            for axis in open_axes
        ]
        _few_enough(path, axes, len(points))
        included = _points(part, axes, base)
        fresh = [point for point in included if identity(point, part.data) not in known]
        known |= {identity(point, part.data) for point in fresh}
        if not fresh and not open_axes:
            problems.append(f"{path}: adds no cell that is not there already; remove it")
        points += fresh if not open_axes else []


def _misfits(part: SuitePart, points: Iterable[Point], base: Path) -> Problems:
    """A problem for every model that cannot be built for the part's data, or belongs in the other part."""
    from epsbench.models.base import Architecture
    from epsbench.models.generative import VAE

    wanted, other = (Architecture, "generation") if part.task == "robustness" else (VAE, "robustness")
    data = describe(part.data)
    problems: dict[str, None] = {}
    path = f"{part.task}.matrix.model"
    for named, z_dim in dict.fromkeys((point["model"], point.get("z_dim", 1)) for point in points):
        name = named.name
        try:
            model = make("model", named, base)
            if not isinstance(model, wanted):
                problems[f"{path}: {name!r} is no model for [{part.task}]; {_belongs(name, part.task, other)}"] = None
            elif isinstance(model, VAE):
                model.check(data, z_dim=z_dim)
            else:
                model.check(data)
        except (ValueError, InputError) as error:
            problems[f"{path}: {name!r} does not fit {str(part.data)!r}: {error}"] = None
    return list(problems)


def _empty_subsets(part: SuitePart, points: Iterable[Point]) -> Problems:
    """A problem for every subset that the part's limit leaves without a training example."""
    if not describe(part.data).sizes[0]:
        return []  # without training the training split need not exist: the run says so where a model needs it
    data, examples = describe(part.data), describe(part.data).training_images(part.limit)
    starts = (dict(start.axes) for point in points if isinstance(start := point.get("start"), Start))
    subsets = dict.fromkeys(axes["subset"] for axes in [*points, *starts] if "subset" in axes)
    empty = [subset for subset in subsets if not data.training_images(part.limit, subset)]
    return [
        f"{part.task}.limit: {examples} leaves {subset!r} no example to train on; give at least 2" for subset in empty
    ]


def _belongs(name: str, task: str, other: str) -> str:
    """What to do with a model of the other task."""
    if task == "generation" and ":" in name:
        return f"name a class derived from epsbench.models.generative.VAE, or move it to [{other}]"
    return f"it may belong in [{other}]"


def _expectations(
    part: SuitePart,
    points: list[Point],
    cells: tuple[Cell, ...],
    base: Path,
    problems: Problems,
) -> tuple[Expectation, ...]:
    expectations = []
    for position, expect in enumerate(part.expect):
        path = f"{part.task}.expect[{position}]"
        chosen = matching(expect.where, points, path, base, problems, key=".where")
        condition = ", ".join(f"{axis} = {shown(value)}" for axis, value in expect.where.items())
        expectations.append(
            Expectation(
                task=part.task,
                where=expect.where,
                bounds=expect.bounds,
                strict=expect.strict,
                cells=tuple(cells[index] for index in chosen),
                label=f"{path} ({condition or 'every cell'})",
                others={
                    name: (tuple(bound.relative_to), tuple(cells[index] for index in others))
                    for name, bound in expect.bounds.items()
                    if isinstance(bound, Cost) and isinstance(bound.relative_to, dict)
                    for others in [matching(bound.relative_to, points, f"{path}.{name}.relative_to", base, problems)]
                },
            )
        )
    return tuple(expectations)
