"""Names with their parameters as values that can be hashed, and their canonical JSON."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import PurePath
from typing import Any

from epsbench.harness.plan.epsilon import format_epsilon

_ABSOLUTE = re.compile(r"(\w+:)?(/[^:]+)(:[\w.]+)?")
"""``/path``, ``file:/path`` and ``/path/to/file.py:Object``."""


Items = tuple[tuple[str, Any], ...]
"""A mapping as a hashable value: keys with their values, sorted by key."""


class Table(tuple[tuple[str, Any], ...]):
    """A mapping as a hashable value: its items in the order of their keys."""

    __slots__ = ()


class HashableDict(dict[str, Any]):
    """A dict as a parameter of an object that is compared with others."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(freeze(self))


def freeze(value: Any) -> Any:
    """A JSON value as a hashable one: lists become tuples, tables become `Table`, fractions become text.

    Raises `TypeError` for a value that JSON cannot hold.
    """
    if isinstance(value, Mapping):
        return Table(sorted((str(key), freeze(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, Fraction):
        return format_epsilon(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a cell")


def thaw(value: Any) -> Any:
    """The JSON value that `freeze` was given."""
    if isinstance(value, Table):
        return {key: thaw(item) for key, item in value}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Named:
    """A name with all its parameters, those that the suite leaves out with their defaults."""

    name: str
    """As the suite writes it: ``"pgd"``, ``"timm:resnet18"`` or ``"mine.py:Attack"``."""
    params: Items = ()
    """Every parameter with its frozen value, sorted by key."""
    changed: tuple[str, ...] = field(default=(), compare=False)
    """The parameters that differ from their defaults. It follows from the others, so equality ignores it."""

    def as_dict(self) -> dict[str, Any]:
        """``{"name": ..., **parameters}``, as in a record."""
        return {"name": self.name} | {key: thaw(value) for key, value in self.params}

    def label(self) -> str:
        """``"pgd(steps=40)"``: the name with the parameters that differ from their defaults."""
        shown = ", ".join(f"{key}={_shown(thaw(value))}" for key, value in self.params if key in self.changed)
        return f"{self.name}({shown})" if shown else self.name


def _shown(value: Any) -> str:
    """A parameter's value in a label; of an attack or a loss, its name."""
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    return "+".join(map(_shown, value)) if isinstance(value, list) else str(value)


def without_places(value: Any) -> Any:
    """A JSON value without absolute paths, for a record: of each the last part is left, and a hash of the whole.

    The hash keeps two files of one name apart.
    """
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    place = _ABSOLUTE.fullmatch(value) if isinstance(value, str) else None
    if place is None:
        return value
    head, path, tail = place.groups(default="")
    return f"{head}{PurePath(path).name}#{hashlib.sha256(path.encode()).hexdigest()[:6]}{tail}"
