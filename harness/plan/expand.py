"""From the parts of a suite to its cells and expectations: the matrix, then excludes, then includes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.axes.budgets import with_budget
from epsbench.harness.plan.axes.corruptions import NONE, VERSION, settled, too_small
from epsbench.harness.plan.axes.matching import matching, shown
from epsbench.harness.plan.axes.radii import too_large_radii
from epsbench.harness.plan.axes.sources import SELF, SourceModel, SourceModels, models_of, resolved, untrained
from epsbench.harness.plan.axes.starts import Start, misfits
from epsbench.harness.plan.axes.tables import Point
from epsbench.harness.plan.bounds import Bound, Cost
from epsbench.harness.plan.cell import Cell, GenerationCell, Named, RobustnessCell, digest
from epsbench.harness.plan.data import SUBSETS, describe
from epsbench.harness.plan.data.own import OwnData
from epsbench.harness.plan.names.augmentations import augmentation_versions
from epsbench.harness.plan.names.content import Content, content_of
from epsbench.harness.plan.names.registry import KINDS, make, name_with_parameters, norm_versions, versions
from epsbench.harness.plan.schema import (
    MOST_CELLS,
    GenerationPart,
    Part,
    RobustnessPart,
    SuitePart,
    TaskPart,
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
    points = resolved(
        _settled(part, dict(zip(matrix, values, strict=True)), base) for values in product(*matrix.values())
    )
    points = _excluded(part, points, base, problems)
    _include(part, points, matrix, base, problems)
    if not points and not problems:
        problems.append(f"{part.task}.exclude: leaves no cell; exclude less")
    problems += [
        *too_large_radii(part, points),
        *_misfits(part, points, base),
        *misfits(part.task, part.data, points),
        *_empty_subsets(part, points),
        *too_small(part.task, part.data, points),
    ]
    problems += untrained(_sources(part), points)
    if problems:
        raise InputError(problems)
    build = _robustness_cell if isinstance(part, RobustnessPart) else _generation_cell
    code = _Versions(part, base)
    if problems := code.unbuildable(points):
        raise InputError(problems)
    cells = _curves(tuple(build(part, point, code) for point in points))  # type: ignore[arg-type]
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


def _values(part: TaskPart, source: Part, axis: str, base: Path) -> list[Any]:
    given = getattr(source, axis)
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


def _settled(part: SuitePart, point: Point, base: Path) -> Point:
    """A point as it is measured: values that mean nothing beside others are left out, so equal cells are one."""
    return with_budget(settled(point), base) if part.task == "robustness" else point


def _include(
    part: SuitePart, points: list[Point], matrix: Mapping[str, list[Any]], base: Path, problems: Problems
) -> None:
    known = {tuple(point.values()) for point in points}
    for position, include in enumerate(part.include):
        path = f"{part.task}.include[{position}]"
        if not include.model_fields_set:
            problems.append(f"{path}: is empty; name at least one axis")
            continue
        axes = {axis: list(getattr(include, axis)) or values for axis, values in matrix.items()}
        open_axes = [axis for axis, values in axes.items() if len(values) > 1 and axis not in include.model_fields_set]
        problems += [
            f"{path}: leaves {axis} open, and the matrix has {len(axes[axis])} values of it; name {axis} here too"
            for axis in open_axes
        ]
        _few_enough(path, axes, len(points))
        included = resolved(
            _settled(part, dict(zip(axes, values, strict=True)), base) for values in product(*axes.values())
        )
        fresh = [point for point in included if tuple(point.values()) not in known]
        known |= {tuple(point.values()) for point in fresh}
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


def _sources(part: SuitePart) -> Iterator[tuple[str, str | SourceModel | SourceModels]]:
    """Every source as the suite writes it, with its key path."""
    tables = [("matrix", part.matrix), *((f"include[{n}]", include) for n, include in enumerate(part.include))]
    for path, table in tables:
        for position, source in enumerate(getattr(table, "source", [])):
            yield f"{part.task}.{path}.source[{position}]", source


def _empty_subsets(part: SuitePart, points: Iterable[Point]) -> Problems:
    """A problem for every subset that the part's limit leaves without a training example."""
    if not describe(part.data).sizes[0]:
        return []  # without training the training split need not exist: the run says so where a model needs it
    examples = min(describe(part.data).sizes[0], part.limit or math.inf)
    starts = (start.point(point) for point in points if isinstance(start := point.get("start"), Start))
    subsets = dict.fromkeys(point.get("subset", "all") for point in [*points, *starts])
    empty = [subset for subset in subsets if not range(int(examples))[SUBSETS[subset](int(examples))]]
    return [
        f"{part.task}.limit: {examples} leaves {subset!r} no example to train on; give at least 2" for subset in empty
    ]


def _belongs(name: str, task: str, other: str) -> str:
    """What to do with a model of the other task."""
    if task == "generation" and ":" in name:
        return f"name a class derived from epsbench.models.generative.VAE, or move it to [{other}]"
    return f"it may belong in [{other}]"


class _Versions:
    """Versions of the code behind the names of a part, each computed once."""

    def __init__(self, part: TaskPart, base: Path) -> None:
        self._base = base
        self._data, self._task = part.data, part.task
        self._known: dict[tuple[str, Named], dict[str, str]] = {}
        self._contents: dict[tuple[Named, str | OwnData, int | None], Content | None] = {}

    def content(self, model: Named, data: str | OwnData, z_dim: int | None = None) -> Content | None:
        """What a model brings for this data; it is built once a part."""
        key = model, data, z_dim
        if key not in self._contents:
            self._contents[key] = content_of(model, self._base, describe(data), z_dim)
        return self._contents[key]

    def unbuildable(self, points: Iterable[Point]) -> Problems:
        """A problem for every model with content of its own that cannot be built for its data."""
        models: dict[tuple[Named, str | OwnData, int | None], None] = {}
        for point in points:
            start = point.get("start")
            for each in (point, start.point(point)) if isinstance(start, Start) else (point,):
                models[each["model"], each.get("data", self._data), each.get("z_dim")] = None
        problems: dict[str, None] = {}
        for key in models:
            try:
                self.content(*key)
            except InputError as error:
                problems |= {f"{self._task}.matrix.model: {message}": None for message in error.messages}
        return list(problems)

    def __call__(
        self,
        subset: str = "all",
        data: str | OwnData = "",
        norm: str = "",
        z_dim: int | None = None,
        augmentation: str = "none",
        **named: Named,
    ) -> tuple[tuple[str, str], ...]:
        description = describe(data or self._data)
        code = {"data": description.identity}
        if subset != "all":
            code["subset"] = description.subset_identity(subset)
        if norm:
            code |= norm_versions(norm)
        code |= augmentation_versions(augmentation, self._base)
        for kind, value in named.items():
            key = (kind, value)
            if key not in self._known:
                self._known[key] = versions(kind, value, self._base)
            code |= self._known[key]
        if (content := self.content(named["model"], data or self._data, z_dim)) is not None and content.digest:
            code["content"] = content.digest
        return tuple(sorted(code.items()))


def _robustness_cell(part: RobustnessPart, point: Point, code: _Versions) -> RobustnessCell:
    source, start, data = point["source"], point["start"], point.get("data", part.data)
    first = _robustness_cell(part, start.point(point) | {"source": SELF}, code) if isinstance(start, Start) else None
    named = {kind: point[kind] for kind in ("model", "defense", "attack")}
    named_code = code(point["subset"], data, norm=point["norm"], augmentation=point["augmentation"], **named)
    further: tuple[tuple[str, str], ...] = (("start", first.weights_key),) if first else ()
    further += (("corruption", VERSION),) if point["corruption"] != NONE else ()
    training = part.training.model_dump()
    content = code.content(point["model"], data)
    if content is not None and content.brings_weights and "epochs" not in part.training.model_fields_set:
        training["epochs"] = 0  # weights that a model brings are trained only where the suite says so
    white_box = RobustnessCell(
        training=tuple(sorted(training.items())),
        limit=part.limit,
        test_images=part.test_images,
        randomness=part.randomness,
        precision=part.precision,
        early_stop=part.early_stop,
        curve=part.curve,
        versions=tuple(sorted((*named_code, *further))),
        **{axis: value for axis, value in point.items() if axis != "queries"}
        | {"data": data, "source": None, "start": first},
    )
    if source == SELF:
        return white_box
    others = tuple(
        _robustness_cell(part, point | dict(each.axes) | {"source": SELF}, code) for each in models_of(source)
    )
    keys = [other.weights_key for other in others]
    versions = (*white_box.versions, ("source", keys[0] if len(keys) == 1 else digest(keys)))
    # An image that fools the source may not fool the victim, so every step is taken.
    return replace(
        white_box, source=others[0], more_sources=others[1:], early_stop=False, versions=tuple(sorted(versions))
    )


def _curves(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """The cells with ``curve_eps`` filled in: every ε of a nested or bisected curve changes what each cell measures."""
    curves: dict[object, set[Fraction]] = {}
    for cell in cells:
        if isinstance(cell, RobustnessCell) and cell.curve != "each":
            curves.setdefault((cell.weights_key, cell.stream), set()).add(cell.eps)
    return tuple(
        replace(cell, curve_eps=tuple(sorted(curves[cell.weights_key, cell.stream])))
        if isinstance(cell, RobustnessCell) and cell.curve != "each"
        else cell
        for cell in cells
    )


def _generation_cell(part: GenerationPart, point: Point, code: _Versions) -> GenerationCell:
    training = part.training.model_dump()
    content = code.content(point["model"], part.data, point["z_dim"])
    if content is not None and content.brings_weights and "epochs" not in part.training.model_fields_set:
        training["epochs"] = 0  # as for classifiers
    return GenerationCell(
        data=part.data,
        training=tuple(sorted(training.items())),
        evaluation=tuple(sorted(part.evaluation.model_dump().items())),
        limit=part.limit,
        precision=part.precision,
        versions=code(model=point["model"], z_dim=point["z_dim"]),
        **point,
    )


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
