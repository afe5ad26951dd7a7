"""Which points of a suite a table of axes and wanted values matches: excludes, and the ``where`` of expectations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.axes.sources import Point, SourceModel, parse_source
from epsbench.harness.plan.axes.starts import Start, parse_start
from epsbench.harness.plan.cell import Named
from epsbench.harness.plan.epsilon import format_epsilon, parse_epsilon
from epsbench.harness.plan.names.registry import KINDS, name_with_parameters

TABLES: dict[str, Callable[[Any, Path], Any]] = {"source": parse_source, "start": parse_start}
"""Axes whose values are tables of other axes."""


def matching(
    where: Mapping[str, Any], points: list[Point], path: str, base: Path, problems: list[str], key: str = ""
) -> list[int]:
    """Positions of the points that ``where`` matches. No match, or a value no point has, is a problem."""
    tests: list[tuple[str, list[Callable[[Any], bool]]]] = []
    before = len(problems)
    for axis, wanted in where.items():
        present = [point[axis] for point in points]
        alternatives = []
        for value in wanted if isinstance(wanted, list) else [wanted]:
            try:
                test = _test(axis, value, base)
            except (ValueError, InputError) as error:
                problems.append(f"{path}{key}.{axis}: {error}")
                continue
            alternatives.append(test)
            if points and not any(test(each) for each in present):
                problems.append(f"{path}{key}.{axis}: no cell has {told(value)}{_nearest(value, present)}")
        tests.append((axis, alternatives))
    found = [
        position
        for position, point in enumerate(points)
        if all(any(test(point[axis]) for test in alternatives) for axis, alternatives in tests)
    ]
    if not found and len(problems) == before:
        problems.append(f"{path}: matches no cell; correct it or remove it")
    return found


def _test(axis: str, value: Any, base: Path) -> Callable[[Any], bool]:
    """Whether an axis's value is the wanted one. Raises `ValueError` or `InputError` where none could be."""
    if axis == "eps":
        eps = parse_epsilon(value)
        return lambda actual: bool(actual == eps)
    if isinstance(value, dict) and axis in TABLES:
        TABLES[axis](value, base)
        tests = {key: _test(key, item, base) for key, item in value.items()}
        return lambda actual: (
            isinstance(actual, SourceModel | Start)
            and all(key in (axes := dict(actual.axes)) and test(axes[key]) for key, test in tests.items())
        )
    if isinstance(value, dict) and axis in KINDS:
        wanted = name_with_parameters(axis, value, base)
        given = {(key, item) for key, item in wanted.params if key in value}
        return lambda actual: actual.name == wanted.name and given <= set(actual.params)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a value of the axis or a list of them, not {value!r}")
    return lambda actual: bool((actual.name if isinstance(actual, Named) else actual) == value)


def _nearest(value: Any, present: Iterable[Any]) -> str:
    shown = {each.name if isinstance(each, Named) else told(each) for each in present}
    return did_you_mean(value if isinstance(value, str) else told(value), shown)


def told(value: Any) -> str:
    """A value of an axis as a message shows it."""
    if isinstance(value, Fraction):
        return format_epsilon(value)
    if isinstance(value, SourceModel | Start):
        return value.label()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {told(item)}" for key, item in value.items()) + " }"
    return value if isinstance(value, str) and value.isprintable() else repr(value)
