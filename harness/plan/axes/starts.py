"""The axis ``start``: the trained weights that a training begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from epsbench.harness.plan.axes.tables import OtherModel, Point, TableAxis
from epsbench.harness.plan.data import DataDescription, describe
from epsbench.harness.plan.data.own import OwnData

SCRATCH = "scratch"


@dataclass(frozen=True)
class Start(OtherModel):
    """A model trained from scratch, whose weights another training begins with.

    It has the cell's architecture, seed and recipe. A table may name other data, and what is done with them.
    """

    def point(self, point: Point) -> Point:
        """The point of the model whose weights a cell at ``point`` begins with."""
        return point | dict(self.axes) | {"start": SCRATCH}


START = TableAxis(
    default=SCRATCH,
    example='{ subset = "first-half" }',
    axes=("data", "defense", "augmentation", "subset"),
    refused={
        "model": "is the cell's own, for weights fit no other architecture",
        "seed": "is the cell's own, for it seeds both trainings",
    },
    result=Start,
)


def misfits(task: str, data: str | OwnData, points: Iterable[Point]) -> Iterator[str]:
    """A problem for every data set whose weights do not fit models of ``data``."""
    starts = (point.get("start") for point in points)
    others = dict.fromkeys(dict(start.axes).get("data", data) for start in starts if isinstance(start, Start))
    for other in others:
        if _form(describe(other)) != _form(describe(data)):
            yield (
                f"{task}.matrix.start: weights trained on {str(other)!r} ({_label(describe(other))}) fit no model for "
                f"{str(data)!r} ({_label(describe(data))}); start from data of the same shape and number of classes"
            )


def _form(data: DataDescription) -> tuple[Any, ...]:
    return data.shape, data.classes


def _label(data: DataDescription) -> str:
    return f"{'×'.join(map(str, data.shape))}, {data.classes} classes"
