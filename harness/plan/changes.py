"""Changes of a suite from the command line: ``--set generation.training.epochs=3``. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.axes.explaining import key_path, tables_of
from epsbench.harness.plan.axes.sources import SELF
from epsbench.harness.plan.axes.starts import SCRATCH
from epsbench.harness.plan.schema import SuiteFile
from epsbench.harness.plan.toml import toml_value

Place = tuple[str | int, ...]

_KEY = re.compile(r"[^.\[\]]+|\[\d+\]")
_SHAPE = re.compile(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*")
_EXAMPLE = "--set robustness.training.epochs=3"


@dataclass(frozen=True)
class Change:
    """One key of a suite and its new value."""

    place: Place
    """``("robustness", "matrix", "eps", 0)``."""
    value: Any
    """As TOML has it."""
    text: str
    """As it was given."""

    @property
    def key(self) -> str:
        """The key as it was given, without the value."""
        return self.text.partition("=")[0].strip()

    def error(self, problem: str) -> InputError:
        """The error that names this change."""
        return InputError(f"--set {self.key}: {problem}")


def read_changes(texts: Iterable[str]) -> list[Change]:
    """The changes of ``KEY=VALUE`` texts. A place in a list is ``key[0]`` or ``key.0``.

    Raises `InputError` for a text without a key or a value, and for a key that no suite has, naming the nearest one.
    """
    changes = []
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value or not _SHAPE.fullmatch(key):
            raise InputError(f"--set {text!r}: must be KEY=VALUE, such as {_EXAMPLE}")
        parts = [part.strip("[]") for part in _KEY.findall(key)]
        place = tuple(int(part) if part.isdecimal() else part for part in parts)
        try:
            change = Change(place, toml_value(value), text)
        except InputError as error:
            raise InputError([f"--set {key}: {message}" for message in error.messages]) from error
        _check_key(change)
        changes.append(change)
    return changes


def apply_changes(document: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """A copy of a parsed suite with the changes made. Raises `InputError` for a place that this suite does not have."""
    changed = deepcopy(dict(document))
    for change in changes:
        _apply(changed, change)
    return changed


def _apply(document: dict[str, Any], change: Change) -> None:
    part = change.place[0]
    if len(change.place) > 1 and part not in document:
        raise change.error(f"this suite has no [{part}]; its parts are {', '.join(_parts(document)) or 'none'}")
    table: Any = document
    for depth, part in enumerate(change.place):
        before = key_path(change.place[:depth])
        if isinstance(table, list):
            if isinstance(part, str):
                raise change.error(f"{before} is a list; say which entry: {before}[0].{part}")
            if part >= len(table):
                raise change.error(f"{before} has {len(table)} entries, the last is {before}[{len(table) - 1}]")
        elif not isinstance(table, dict) or isinstance(part, int):
            raise change.error(f"{before} is {table!r}, which has no {part!r}; set {before} as a whole")
        if depth == len(change.place) - 1:
            table[part] = change.value
            return
        inner: Any = table[part] if isinstance(table, list) or part in table else None  # type: ignore[index]
        if inner is None and isinstance(change.place[depth + 1], int):
            raise change.error(f"{key_path(change.place[: depth + 1])} is not in the suite; set it as a whole")
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and isinstance(change.place[depth + 1], str):
            # A name alone is a name without parameters; these two are no names: they stand where there is no table.
            inner = {} if inner in (SCRATCH, SELF) else {"name": inner}
        table[part] = inner
        table = inner


def _parts(document: Mapping[str, Any]) -> list[str]:
    return [f"[{name}]" for name, value in document.items() if isinstance(value, dict)]


def _check_key(change: Change) -> None:
    """Raise `InputError` for a key that is in no suite. Parameters of names are checked where the names are read."""
    table: type[BaseModel] | None = SuiteFile
    for depth, part in enumerate(change.place):
        if table is None:
            return
        if isinstance(part, int):
            continue
        if part not in table.model_fields:
            raise change.error(f"unknown key{_nearest(change, table, change.place[:depth])}")
        table = next(tables_of(table.model_fields[part].annotation), None)


def _nearest(change: Change, table: type[BaseModel], before: Place) -> str:
    names = [part for part in change.place if isinstance(part, str)]
    places = list(_all_places(SuiteFile, ""))
    whole = did_you_mean(key_path(tuple(names)), [each for each in places if each.count(".") == len(names) - 1])
    if "did you mean" in whole and len(names) > 1:
        return whole
    ends = [each for each in places if each.endswith((f".{change.key}", f".{names[-1]}"))]
    if same := [each for each in ends if each.partition(".")[0] == names[0]] or ends:
        fewest = min(each.count(".") for each in same)  # that of the part, and not that of a value of its axes
        return f"; did you mean {' or '.join(repr(each) for each in same if each.count('.') == fewest)}?"
    where = f"{key_path(before)}." if before else ""
    return did_you_mean(key_path(change.place[: len(before) + 1]), [f"{where}{name}" for name in table.model_fields])


def _all_places(table: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in table.model_fields.items():
        yield f"{prefix}{name}"
        inner = next(tables_of(field.annotation), None)
        if inner is not None:
            yield from _all_places(inner, f"{prefix}{name}.")
