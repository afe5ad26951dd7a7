"""The axis ``source``: the model whose gradients make the adversarial images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from epsbench.harness.plan.axes.tables import MODEL_AXES, OtherModel, Point, TableAxis

SELF = "self"


@dataclass(frozen=True)
class SourceModel(OtherModel):
    """Another model of the suite, by the axes that decide its weights.

    A suite names some of these axes; `resolved` takes the rest from the cell.
    """

    written: SourceModel | None = field(default=None, compare=False)
    """The source as the suite writes it, before `resolved` completed it."""

    def label(self, axes: Iterable[str] = MODEL_AXES) -> str:
        """``"model smallcnn, subset first-half"``: the values of these axes."""
        return super().label(axes)


SOURCE = TableAxis(
    default=SELF,
    example='{ subset = "second-half" }',
    axes=MODEL_AXES,
    refused=dict.fromkeys(
        ("source", "attack", "norm", "eps"), "is no part of a trained model; the cell's own value is used"
    ),
    result=SourceModel,
    empty='is empty and so means the model itself; write "self"',
)


def resolved(points: Iterable[Point]) -> list[Point]:
    """Points with every source completed from the point's own axes; a model that is its own source becomes ``"self"``.

    Points that are equal after that are kept once.
    """
    distinct: dict[tuple[Any, ...], Point] = {}
    for point in points:
        whole = point | {"source": _completed(point)} if "source" in point else point
        distinct.setdefault(tuple(whole.values()), whole)
    return list(distinct.values())


def untrained(entries: Iterable[tuple[str, str | SourceModel]], points: Iterable[Point]) -> Iterator[str]:
    """A problem for every source whose model is trained by no point of the suite.

    ``entries`` are the sources as the suite writes them, each with its key path.
    """
    points = list(points)
    trained = list(dict.fromkeys(_own(point) for point in points if "source" in point))
    sources = [point["source"] for point in points if isinstance(point.get("source"), SourceModel)]
    for path, entry in entries:
        lacking = [source for source in sources if source.written is entry and source not in trained]
        if lacking:
            source = lacking[0]
            nearest = max(trained, key=lambda model: len(set(model.axes) & set(source.axes)))
            other = [axis for axis in MODEL_AXES if dict(nearest.axes)[axis] != dict(source.axes)[axis]]
            yield (
                f"{path}: stands for {source.label()}, which no cell of the suite trains; the nearest that one does "
                f"train has {nearest.label(other)}: correct the table, or add the model's own cells"
            )


def _completed(point: Point) -> str | SourceModel:
    source, own = point["source"], _own(point)
    if not isinstance(source, SourceModel):
        return SELF
    whole = SourceModel(tuple(sorted((dict(own.axes) | dict(source.axes)).items())), written=source)
    return SELF if whole == own else whole


def _own(point: Point) -> SourceModel:
    return SourceModel(tuple(sorted((axis, point[axis]) for axis in MODEL_AXES)))
