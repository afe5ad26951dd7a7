"""A user's own data as a cell names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.named import Named, thaw


@dataclass(frozen=True)
class OwnData:
    """A source with its parameters, and what it holds."""

    named: Named
    """The source: ``npz``, ``folder`` or ``path/to/file.py:Object``, with its parameters."""
    base: Path = field(compare=False)
    """The folder that its paths are relative to."""
    description: DataDescription
    """Shape, classes, sizes and the digest of its content."""

    def __str__(self) -> str:
        return self.description.name

    def record(self) -> dict[str, Any]:
        """The data in a record: its name, the parameters that are set, and 8 digits of its content's digest.

        Of a path outside the suite's folder only the last part is there: a record holds no place of a machine.
        """
        given = {key: thaw(value) for key, value in self.named.params if key in self.named.changed}
        paths = {
            key: short_path(value, self.base) for key, value in given.items() if key in PATHS and isinstance(value, str)
        }
        return {"name": short_address(self.named.name), **given, **paths, "content": self.description.identity[:8]}


PATHS = frozenset({"path", "train", "ids", "labels", "classes"})
"""Parameters of sources that may be paths."""


def short_path(path: str, base: Path) -> str:
    """A path below the suite's folder, ``base``, as it is; of any other only the last part."""
    pure = PurePath(path)
    inside = not pure.is_absolute() and ".." not in pure.parts and pure.name
    return pure.as_posix() if inside else (base / path).resolve().name


def short_address(address: str) -> str:
    """As `short_path`, for ``path/to/file.py:Object``; any other name stays."""
    place, colon, name = address.rpartition(":")
    return f"{short_path(place, Path())}:{name}" if place.endswith(".py") else f"{place}{colon}{name}"
