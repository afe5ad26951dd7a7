"""The axis ``source``: the model whose gradients make the adversarial images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epsbench.harness.plan.axes.starts import identity
from epsbench.harness.plan.axes.tables import MODEL_AXES, OtherModel, Point, TableAxis
from epsbench.harness.plan.data.own import OwnData

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


@dataclass(frozen=True)
class SourceModels:
    """Several models of the suite: the images are made on the mean of their logits."""

    models: tuple[SourceModel, ...]
    """The models, two or more, sorted by their axes: their order means nothing."""

    def label(self) -> str:
        """The labels of the models."""
        return " and ".join(model.label() for model in self.models)

    @classmethod
    def of(cls, models: Iterable[SourceModel]) -> SourceModels | SourceModel:
        """These models, each once; of equal ones the only one."""
        distinct = sorted(dict.fromkeys(models), key=repr)
        return cls(tuple(distinct)) if len(distinct) > 1 else distinct[0]


class SourceAxis(TableAxis):
    """The axis ``source``: a list in place of a table names several models."""

    def read(self, entry: Any, base: Path) -> str | SourceModel | SourceModels:  # type: ignore[override]
        """As `TableAxis.read`; of a list, all its tables."""
        if not isinstance(entry, list):
            return super().read(entry, base)  # type: ignore[return-value]
        models, problems = [], []
        for position, table in enumerate(entry):
            try:
                if not isinstance(table, dict):
                    raise ValueError(f"must be a table such as {self.example}, not {table!r}")
                models.append(super().read(table, base))
            except ValueError as error:
                problems.append(f"model {position}: {error}")
        if problems or len(models) < 2:
            raise ValueError("; ".join(problems) or "names fewer than two models; write one as a table, without a list")
        return SourceModels(tuple(models))  # type: ignore[arg-type]


SOURCE = SourceAxis(
    default=SELF,
    example='{ subset = "second-half" }',
    axes=MODEL_AXES,
    refused=dict.fromkeys(
        ("source", "attack", "norm", "eps"), "is no part of a trained model; the cell's own value is used"
    ),
    result=SourceModel,
    empty='is empty and so means the model itself; write "self"',
)


def resolved(points: Iterable[Point], data: str | OwnData) -> list[Point]:
    """Points with every source completed from the point's own axes; a model that is its own source becomes ``"self"``.

    ``data`` are the points' own. Points that measure the same after that are kept once.
    """
    distinct: dict[tuple[Any, ...], Point] = {}
    for point in points:
        whole = point | {"source": _completed(point)} if "source" in point else point
        distinct.setdefault(identity(whole, data), whole)
    return list(distinct.values())


def untrained(
    entries: Iterable[tuple[str, str | SourceModel | SourceModels]], points: Iterable[Point]
) -> Iterator[str]:
    """A problem for every source whose model is trained by no point of the suite.

    ``entries`` are the sources as the suite writes them, each with its key path.
    """
    points = list(points)
    trained = list(dict.fromkeys(_own(point) for point in points if "source" in point))
    sources = [source for point in points for source in models_of(point.get("source"))]
    for path, entry in entries:
        written = models_of(entry)
        lacking = [
            source for source in sources if any(source.written is each for each in written) and source not in trained
        ]
        if lacking:
            source = lacking[0]
            nearest = max(trained, key=lambda model: len(set(model.axes) & set(source.axes)))
            other = [axis for axis in MODEL_AXES if dict(nearest.axes)[axis] != dict(source.axes)[axis]]
            yield (
                f"{path}: stands for {source.label()}, which no cell of the suite trains; the nearest that one does "
                f"train has {nearest.label(other)}: correct the table, or add the model's own cells"
            )


def models_of(source: object) -> tuple[SourceModel, ...]:
    """The other models that a source consists of; none of ``"self"``."""
    if isinstance(source, SourceModels):
        return source.models
    return (source,) if isinstance(source, SourceModel) else ()


def _completed(point: Point) -> str | SourceModel | SourceModels:
    own = _own(point)
    whole = [
        SourceModel(tuple(sorted((dict(own.axes) | dict(source.axes)).items())), written=source)
        for source in models_of(point["source"])
    ]
    completed = SourceModels.of(whole) if whole else own
    return SELF if completed == own else completed


def _own(point: Point) -> SourceModel:
    return SourceModel(tuple(sorted((axis, point[axis]) for axis in MODEL_AXES)))
