"""The axis ``source``: whose gradients make the adversarial images that a model has to stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.cell import Items, Named
from epsbench.harness.plan.names.registry import check_plain, name_with_parameters

Point = dict[str, Any]
Reader = Callable[[Any, Path], Any]

SELF = "self"
MODEL_AXES = ("model", "defense", "augmentation", "subset", "seed")
ATTACK_AXES = ("source", "attack", "norm", "eps")
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class SourceModel:
    """Another model of the suite, by the axes that decide its weights.

    As a suite writes it, it names some of them; `resolved` fills in the cell's own, and keeps in ``written`` what
    the suite says.
    """

    axes: Items
    written: SourceModel | None = field(default=None, compare=False)

    def label(self, axes: Iterable[str] = MODEL_AXES) -> str:
        """``"model smallcnn, subset first-half"``: its values of these axes."""
        values = dict(self.axes)
        return ", ".join(f"{axis} {_shown(values[axis])}" for axis in axes if axis in values)


def parse_source(entry: Any, base: Path) -> str | SourceModel:
    """``"self"``, or the model that a table of axes names; names resolve relative to ``base``.

    Raises `ValueError`, with every problem of the table, for anything else.
    """
    if entry == SELF:
        return SELF
    if not isinstance(entry, dict):
        raise ValueError(f'must be "self" or a table such as {{ subset = "second-half" }}, not {entry!r}')
    if not entry:
        raise ValueError('is empty and so means the model itself; write "self"')
    return SourceModel(read_axes(entry, base, _axis_reader))


def read_axes(entry: dict[str, Any], base: Path, reader: Callable[[str], Reader]) -> Items:
    """A table of axes, each read by what ``reader`` gives for it. Raises `ValueError` with every problem."""
    axes, problems = {}, []
    for axis, value in entry.items():
        try:
            axes[axis] = reader(axis)(value, base)
        except (ValueError, InputError) as error:
            problems.append(f"{axis}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(sorted(axes.items()))


def resolved(points: Iterable[Point]) -> list[Point]:
    """Points with their sources filled in from their own axes; a model that is its own source is ``"self"``.

    What is the same point then is there once.
    """
    distinct: dict[tuple[Any, ...], Point] = {}
    for point in points:
        whole = point | {"source": _filled_in(point)} if "source" in point else point
        distinct.setdefault(tuple(whole.values()), whole)
    return list(distinct.values())


def untrained(entries: Iterable[tuple[str, str | SourceModel]], points: Iterable[Point]) -> Iterator[str]:
    """A problem for every source, by its key path, that stands for a model which no point of the suite trains."""
    points = list(points)
    trained = list(dict.fromkeys(_own(point) for point in points if "source" in point))
    borrowed = [point["source"] for point in points if isinstance(point.get("source"), SourceModel)]
    for path, entry in entries:
        lacking = [source for source in borrowed if source.written is entry and source not in trained]
        if lacking:
            source = lacking[0]
            nearest = max(trained, key=lambda model: len(set(model.axes) & set(source.axes)))
            other = [axis for axis in MODEL_AXES if dict(nearest.axes)[axis] != dict(source.axes)[axis]]
            yield (
                f"{path}: stands for {source.label()}, which no cell of the suite trains; the nearest that one does "
                f"train has {nearest.label(other)}: correct the table, or add the model's own cells"
            )


def _filled_in(point: Point) -> str | SourceModel:
    source, own = point["source"], _own(point)
    if not isinstance(source, SourceModel):
        return SELF
    whole = SourceModel(tuple(sorted((dict(own.axes) | dict(source.axes)).items())), written=source)
    return SELF if whole == own else whole


def _own(point: Point) -> SourceModel:
    return SourceModel(tuple(sorted((axis, point[axis]) for axis in MODEL_AXES)))


def read_named(kind: str, value: Any, base: Path) -> Named:
    """A name with parameters. Raises `ValueError` or `InputError` where it is none."""
    if not isinstance(value, str | dict):
        raise ValueError(f'must be a name or a table such as {{ name = "..." }}, not {value!r}')
    return name_with_parameters(kind, value, base)


def read_plain(kind: str, value: Any, base: Path) -> str:
    """A name that takes no parameters. Raises `ValueError` where it is none."""
    return check_plain(kind, value)


def _seed(value: Any, base: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_SEED:
        raise ValueError(f"must be a whole number from 0 to {LARGEST_SEED}, not {value!r}")
    return value


_READERS: dict[str, Reader] = {
    "model": partial(read_named, "model"),
    "defense": partial(read_named, "defense"),
    "augmentation": partial(read_plain, "augmentation"),
    "subset": partial(read_plain, "subset"),
    "seed": _seed,
}


def _axis_reader(axis: str) -> Reader:
    if axis in ATTACK_AXES:
        raise ValueError(f"is no part of a trained model; the cell's own holds: leave {axis} out here")
    if axis not in _READERS:
        raise ValueError(f"unknown key{did_you_mean(axis, _READERS)}")
    return _READERS[axis]


def _shown(value: Any) -> str:
    return value.label() if isinstance(value, Named) else str(value)
