"""Which points of a suite a ``where`` table or an exclude matches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.axes.recipes import Recipe, check_keys
from epsbench.harness.plan.axes.sources import SOURCE, SourceModels
from epsbench.harness.plan.axes.starts import START
from epsbench.harness.plan.axes.tables import OtherModel, Point, TableAxis
from epsbench.harness.plan.epsilon import any_epsilon, format_epsilon
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.names.aliases import without_alias
from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.plan.names.registry import name_with_parameters

TABLES: dict[str, TableAxis] = {"source": SOURCE, "start": START}
"""Axes whose values may be tables of other axes."""


def matching(
    where: Mapping[str, Any], points: list[Point], path: str, base: Path, problems: list[str], key: str = ""
) -> list[int]:
    """Positions of the points that ``where`` matches.

    ``path`` is the table's key path and ``key`` what follows it in messages. Appends to ``problems`` when no point
    matches, and for every wanted value that no point has.
    """
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
                problems.append(f"{path}{key}.{axis}: no cell has {shown(value)}{_nearest(value, present)}")
        tests.append((axis, alternatives))
    positions = [
        position
        for position, point in enumerate(points)
        if all(any(test(point[axis]) for test in alternatives) for axis, alternatives in tests)
    ]
    if not positions and len(problems) == before:
        problems.append(f"{path}: matches no cell; correct it or remove it")
    return positions


def _test(axis: str, value: Any, base: Path) -> Callable[[Any], bool]:
    """A test for whether a point's value of an axis is the wanted one.

    Raises `ValueError` or `InputError` for a value that the axis cannot have.
    """
    if axis == "eps":
        eps = any_epsilon(value)
        return lambda actual: bool(actual == eps)
    if isinstance(value, dict) and axis == "training":
        check_keys(value)
        return lambda actual: bool(actual.has(value))
    if isinstance(value, dict) and axis in TABLES:
        TABLES[axis].read(value, base)
        tests = {key: _test(key, item, base) for key, item in value.items()}
        return lambda actual: (
            isinstance(actual, OtherModel)
            and all(key in (axes := dict(actual.axes)) and test(axes[key]) for key, test in tests.items())
        )
    if isinstance(value, list) and axis == "source":
        SOURCE.read(value, base)
        members = [_test(axis, table, base) for table in value]
        return lambda actual: (
            isinstance(actual, SourceModels)
            and len(actual.models) == len(members)
            and all(any(test(model) for model in actual.models) for test in members)
        )
    if isinstance(value, dict) and axis in KINDS:
        wanted = name_with_parameters(axis, value, base)
        return lambda actual: actual.name == wanted.name and _has(dict(actual.params), dict(wanted.params), value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"must be a value of the axis or a list of them, not {value!r}")
    if isinstance(value, str):
        value, _ = without_alias(axis, value, {})
    return lambda actual: bool((actual.name if isinstance(actual, Named) else actual) == value)


def _has(actual: Mapping[str, Any], wanted: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether parameters are as ``given``; ``wanted`` has those with every default filled in.

    A parameter that was added later is in neither where it has its default.
    """
    return all(
        _is(actual[key], wanted[key], item) if key in actual and key in wanted else (key in actual) == (key in wanted)
        for key, item in given.items() if key != "name"
    )  # fmt: skip


def _is(actual: Any, wanted: Any, given: Any) -> bool:
    """Whether the value of a parameter is the wanted one. A name inside another matches with any other parameters."""
    if isinstance(given, list) and isinstance(actual, tuple) and isinstance(wanted, tuple):
        return len(actual) == len(wanted) == len(given) and all(map(_is, actual, wanted, given))
    a, b = _table(actual), _table(wanted)
    if a is None or b is None:
        return bool(actual == wanted)
    return a["name"] == b["name"] and _has(a, b, given if isinstance(given, Mapping) else {})


def _table(value: Any) -> dict[str, Any] | None:
    """A frozen table of a name and parameters as a dict; None for other values."""
    if not isinstance(value, tuple) or not all(isinstance(each, tuple) and len(each) == 2 for each in value):
        return None
    table = dict(value)
    return table if "name" in table else None


def _nearest(value: Any, present: Iterable[Any]) -> str:
    names = {each.name if isinstance(each, Named) else shown(each) for each in present}
    return did_you_mean(value if isinstance(value, str) else shown(value), names)


def shown(value: Any) -> str:
    """A value of an axis as messages show it."""
    if isinstance(value, Fraction):
        return format_epsilon(value)
    if isinstance(value, OtherModel | SourceModels):
        return value.label()
    if isinstance(value, Recipe):
        return value.changes.label()
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {shown(item)}" for key, item in value.items()) + " }"
    return value if isinstance(value, str) and value.isprintable() else repr(value)
