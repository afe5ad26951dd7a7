"""Axes whose value may be a table of other axes, such as ``source = { subset = "second-half" }``: how it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.axes.recipes import Changes, read_changes
from epsbench.harness.plan.data import SUBSETS
from epsbench.harness.plan.named import Items, Named
from epsbench.harness.plan.names.augmentations import read_augmentation
from epsbench.harness.plan.names.data import read_data
from epsbench.harness.plan.names.places import known_name
from epsbench.harness.plan.names.registry import name_with_parameters

Point = dict[str, Any]
"""One point of the matrix: a value for each axis."""

MODEL_AXES = ("model", "defense", "augmentation", "subset", "seed")
"""The axes that, with the data and the recipe, decide the weights of a classifier."""

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class OtherModel:
    """A model other than the cell's own, by the axes in which it differs."""

    axes: Items
    """The axes named and their values, sorted by axis."""

    def label(self, axes: Iterable[str] = ()) -> str:
        """``"model smallcnn, subset first-half"``: the values of these axes, in this order; of all without any."""
        values = dict(self.axes)
        return ", ".join(f"{axis} {_label(values[axis])}" for axis in axes or values if axis in values)


@dataclass(frozen=True)
class TableAxis:
    """An axis whose value is either its default, a string, or a table of other axes."""

    default: str
    """The axis's default, such as ``"self"``."""
    example: str
    """A table to show in messages."""
    axes: tuple[str, ...]
    """The axes that a table may name."""
    refused: Mapping[str, str]
    """Axes that a table must not name, each with the reason."""
    result: Callable[[Items], OtherModel]
    """What makes the value from the axes of a table."""
    empty: str = ""
    """The message for an empty table, where it needs one of its own."""

    def read(self, entry: Any, base: Path) -> str | OtherModel:
        """The default, or the model that a table of axes names; names resolve relative to the folder ``base``.

        Raises `ValueError`, with every problem of the table, for anything else.
        """
        if entry == self.default:
            return self.default
        if self.empty and entry == {}:
            raise ValueError(self.empty)
        if not isinstance(entry, dict) or not entry:
            raise ValueError(f'must be "{self.default}" or a table such as {self.example}, not {entry!r}')
        axes, problems = {}, []
        for axis, value in entry.items():
            try:
                axes[axis] = self._reader(axis)(value, base)
            except (ValueError, InputError) as error:
                problems.append(f"{axis}: {error}")
        if problems:
            raise ValueError("; ".join(problems))
        return self.result(tuple(sorted(axes.items())))

    def _reader(self, axis: str) -> Callable[[Any, Path], Any]:
        if axis in self.refused:
            raise ValueError(f"{self.refused[axis]}: leave {axis} out here")
        if axis not in self.axes:
            raise ValueError(f"unknown key{did_you_mean(axis, self.axes)}")
        return READERS[axis]


def read_named(kind: str, value: Any, base: Path) -> Named:
    """A name with parameters. Raises `ValueError` or `InputError` for anything else."""
    if not isinstance(value, str | dict):
        raise ValueError(f'must be a name or a table such as {{ name = "..." }}, not {value!r}')
    return name_with_parameters(kind, value, base)


def read_subset(value: Any, base: Path) -> str:
    """The name of a part of the training split. Raises `InputError` for anything else."""
    return known_name(value, "subset", SUBSETS)


def _seed(value: Any, base: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_SEED:
        raise ValueError(f"must be a whole number from 0 to {LARGEST_SEED}, not {value!r}")
    return value


READERS: dict[str, Callable[[Any, Path], Any]] = {
    "data": read_data,
    "model": partial(read_named, "model"),
    "defense": partial(read_named, "defense"),
    "augmentation": read_augmentation,
    "subset": read_subset,
    "seed": _seed,
    "training": read_changes,
}
"""How one value of an axis is read inside a table: axis → function of the value and the suite's folder."""


def _label(value: Any) -> str:
    return value.label() if isinstance(value, Named | Changes) else str(value)
