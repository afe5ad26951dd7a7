"""The axis ``start``: the trained weights that a training begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from epsbench.harness.errors import did_you_mean
from epsbench.harness.plan.axes.sources import Point, Reader, read_axes, read_named, read_plain
from epsbench.harness.plan.cell import Items, Named
from epsbench.harness.plan.data import DATASETS, DataDescription

SCRATCH = "scratch"
OWN = {"model": "weights fit no other architecture", "seed": "it seeds both trainings"}


@dataclass(frozen=True)
class Start:
    """A model trained from scratch, by what of its training is not the cell's own.

    Architecture, seed and recipe are the cell's: what is left to name is the data and what is done with them.
    """

    axes: Items

    def label(self) -> str:
        """``"data fashion-mnist"``."""
        return ", ".join(f"{axis} {value.label() if isinstance(value, Named) else value}" for axis, value in self.axes)

    def point(self, point: Point) -> Point:
        """The point of the model whose weights a cell at ``point`` begins with."""
        return point | dict(self.axes) | {"start": SCRATCH}


def parse_start(entry: Any, base: Path) -> str | Start:
    """``"scratch"``, or the model that a table of axes names; names resolve relative to ``base``.

    Raises `ValueError`, with every problem of the table, for anything else.
    """
    if entry == SCRATCH:
        return SCRATCH
    if not isinstance(entry, dict) or not entry:
        raise ValueError(f'must be "{SCRATCH}" or a table such as {{ subset = "first-half" }}, not {entry!r}')
    return Start(read_axes(entry, base, _reader))


def misfits(task: str, data: str, points: Iterable[Point]) -> Iterator[str]:
    """A problem for every data set whose weights do not fit models of ``data``."""
    starts = (point.get("start") for point in points)
    others = dict.fromkeys(dict(start.axes).get("data", data) for start in starts if isinstance(start, Start))
    for other in others:
        if _form(DATASETS[other]) != _form(DATASETS[data]):
            yield (
                f"{task}.matrix.start: weights trained on {other!r} ({_told(DATASETS[other])}) fit no model for "
                f"{data!r} ({_told(DATASETS[data])}); start from data of the same shape and number of classes"
            )


def _form(data: DataDescription) -> tuple[Any, ...]:
    return data.shape, data.classes


def _told(data: DataDescription) -> str:
    return f"{'×'.join(map(str, data.shape))}, {data.classes} classes"


_READERS: dict[str, Reader] = {
    "data": partial(read_plain, "data set"),
    "defense": partial(read_named, "defense"),
    "augmentation": partial(read_plain, "augmentation"),
    "subset": partial(read_plain, "subset"),
}


def _reader(axis: str) -> Reader:
    if axis in OWN:
        raise ValueError(f"is the cell's own, for {OWN[axis]}: leave {axis} out here")
    if axis not in _READERS:
        raise ValueError(f"unknown key{did_you_mean(axis, _READERS)}")
    return _READERS[axis]
