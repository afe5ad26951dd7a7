"""The axis ``start``: the trained weights that a training begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.axes.tables import OtherModel, Point, TableAxis
from epsbench.harness.plan.data import DataDescription, describe
from epsbench.harness.plan.data.own import OwnData

SCRATCH = "scratch"


@dataclass(frozen=True)
class Start(OtherModel):
    """A model trained from scratch, whose weights another training begins with.

    It has the cell's architecture, seed and recipe. A table may name other data, what is done with them, and changes of
    the recipe.
    """

    def point(self, point: Point) -> Point:
        """The point of the model whose weights a cell at ``point`` begins with.

        Raises `InputError` where the changes of the recipe do not go with the recipe.
        """
        axes = dict(self.axes)
        if "training" in axes:
            axes["training"] = point["training"].changed(axes["training"], "training")
        return point | axes | {"start": SCRATCH}


START = TableAxis(
    default=SCRATCH,
    example='{ subset = "first-half" }',
    axes=("data", "defense", "augmentation", "subset", "training"),
    refused={
        "model": "is the cell's own, for weights fit no other architecture",
        "seed": "is the cell's own, for it seeds both trainings",
    },
    result=Start,
)


def identity(point: Point, data: str | OwnData) -> tuple[Any, ...]:
    """What a point on ``data`` measures: equal for two whose starts are one training, however their tables say it."""
    start = point.get("start")
    if not isinstance(start, Start):
        return tuple(point.values())
    try:
        first = start.point(point)
    except InputError:  # `misfits` reports it
        return tuple(point.values())
    own = (value for axis, value in point.items() if axis != "start")
    return *own, *(({"data": data} | first)[axis] for axis in START.axes)


def misfits(task: str, data: str | OwnData, points: Iterable[Point]) -> Iterator[str]:
    """A problem for every recipe that cannot be, and for every data set whose weights do not fit models of ``data``."""
    started = [(start, point) for point in points if isinstance(start := point.get("start"), Start)]
    problems: dict[str, None] = {}
    for start, point in started:
        try:
            start.point(point)
        except InputError as error:
            problems |= {f"{task}.matrix.start.{message}": None for message in error.messages}
    yield from problems
    for other in dict.fromkeys(dict(start.axes).get("data", data) for start, _ in started):
        if _form(describe(other)) != _form(describe(data)):
            yield (
                f"{task}.matrix.start: weights trained on {str(other)!r} ({_label(describe(other))}) fit no model for "
                f"{str(data)!r} ({_label(describe(data))}); start from data of the same shape and number of classes"
            )


def _form(data: DataDescription) -> tuple[Any, ...]:
    return data.shape, data.classes


def _label(data: DataDescription) -> str:
    return f"{'×'.join(map(str, data.shape))}, {data.classes} classes"
