"""From the points of a matrix to cells: the versions of the code behind every name, and what a model brings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from epsbench.harness.digest import digest
from epsbench.harness.errors import InputError
from epsbench.harness.plan.axes.corruptions import NONE, VERSION
from epsbench.harness.plan.axes.sources import SELF, models_of
from epsbench.harness.plan.axes.starts import Start
from epsbench.harness.plan.axes.tables import Point
from epsbench.harness.plan.cell import Cell, GenerationCell, RobustnessCell
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.data.own import OwnData
from epsbench.harness.plan.named import Items, Named
from epsbench.harness.plan.names.augmentations import augmentation_versions
from epsbench.harness.plan.names.content import Content, content_of
from epsbench.harness.plan.names.norms import norm_versions
from epsbench.harness.plan.names.registry import make, versions
from epsbench.harness.plan.schema import (
    GenerationPart,
    RobustnessPart,
    SuitePart,
)

_UNCLEAR = (
    "has constant parameters beside tensors that are none, so it may bring weights or may be there to be trained: say "
    "epochs = 0 to measure it as it is built, or how many epochs it is trained"
)


class Versions:
    """Versions of the code behind the names of a part, each computed once."""

    def __init__(self, part: SuitePart, base: Path) -> None:
        self._base = base
        self._data, self._task = part.data, part.task
        self._known: dict[tuple[str, Named], dict[str, str]] = {}
        self._contents: dict[tuple[Named, str | OwnData, int | None], Content | None] = {}
        self._ranks: dict[tuple[Named, str, str | OwnData], bool] = {}

    def content(self, model: Named, data: str | OwnData, z_dim: int | None = None) -> Content | None:
        """What a model brings for this data; it is built once a part."""
        key = model, data, z_dim
        if key not in self._contents:
            self._contents[key] = content_of(model, self._base, describe(data), z_dim)
        return self._contents[key]

    def unbuildable(self, points: Iterable[Point]) -> list[str]:
        """A problem for every model with content of its own that cannot be built for its data."""
        models: dict[tuple[Named, str | OwnData, int | None], bool] = {}
        for point in points:
            start = point.get("start")
            for each in (point, start.point(point)) if isinstance(start, Start) else (point,):
                key = each["model"], each.get("data", self._data), each.get("z_dim")
                models[key] = models.get(key, True) and each["training"].says_epochs
        problems: dict[str, None] = {}
        for key, says_epochs in models.items():
            try:
                content = self.content(*key)
                if content is not None and content.unclear and not says_epochs:
                    problems[f"{self._task}.training.epochs: {key[0].label()} {_UNCLEAR}"] = None
            except InputError as error:
                problems |= {f"{self._task}.matrix.model: {message}": None for message in error.messages}
        return list(problems)

    def ranks_classes(self, attack: Named, norm: str, data: str | OwnData) -> bool:
        """Whether an attack goes by the logits at the clean images."""
        key = attack, norm, data
        if key not in self._ranks:
            made = make("attack", attack, self._base, norm=norm)
            self._ranks[key] = made.reads_clean_logits(describe(data).classes)
        return self._ranks[key]

    def __call__(
        self,
        subset: str = "all",
        data: str | OwnData = "",
        norm: str = "",
        z_dim: int | None = None,
        augmentation: str = "none",
        **named: Named,
    ) -> tuple[tuple[str, str], ...]:
        description = describe(data or self._data)
        code = {"data": description.identity}
        if subset != "all":
            code["subset"] = description.subset_identity(subset)
        if norm:
            code |= norm_versions(norm, self._base)
        code |= augmentation_versions(augmentation, self._base)
        for kind, value in named.items():
            key = (kind, value)
            if key not in self._known:
                self._known[key] = versions(kind, value, self._base)
            code |= self._known[key]
        if (content := self.content(named["model"], data or self._data, z_dim)) is not None and content.digest:
            code["content"] = content.digest
        return tuple(sorted(code.items()))


def robustness_cell(part: RobustnessPart, point: Point, code: Versions) -> RobustnessCell:
    source, start, data = point["source"], point["start"], point.get("data", part.data)
    first = robustness_cell(part, start.point(point) | {"source": SELF}, code) if isinstance(start, Start) else None
    named = {kind: point[kind] for kind in ("model", "defense", "attack")}
    named_code = code(point["subset"], data, norm=point["norm"], augmentation=point["augmentation"], **named)
    further: tuple[tuple[str, str], ...] = (("start", first.weights_key),) if first else ()
    further += (("corruption", VERSION),) if point["corruption"] != NONE else ()
    training = _training(point, code.content(point["model"], data))
    white_box = RobustnessCell(
        training=training,
        changes=point["training"].changes.label(),
        limit=part.limit,
        test_images=part.test_images,
        randomness=part.randomness,
        precision=part.precision,
        early_stop=part.early_stop,
        curve=part.curve,
        versions=tuple(sorted((*named_code, *further))),
        **{axis: value for axis, value in point.items() if axis not in ("queries", "training")}
        | {"data": data, "source": None, "start": first},
    )
    if source == SELF:
        return white_box
    others = tuple(
        robustness_cell(part, point | dict(each.axes) | {"source": SELF}, code) for each in models_of(source)
    )
    keys = [other.weights_key for other in others]
    versions = (*white_box.versions, ("source", keys[0] if len(keys) == 1 else digest(keys)))
    if code.ranks_classes(point["attack"], point["norm"], data):  # once by the logits of the attacked model
        versions += (("clean_logits", "of the source"),)
    # An image that fools the source may not fool the victim, so every step is taken.
    return replace(
        white_box, source=others[0], more_sources=others[1:], early_stop=False, versions=tuple(sorted(versions))
    )


def with_curves(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """The cells with ``curve_eps`` filled in: every ε of a nested or bisected curve changes what each cell measures."""
    curves: dict[object, set[Fraction]] = {}
    for cell in cells:
        if isinstance(cell, RobustnessCell) and cell.curve != "each":
            curves.setdefault((cell.weights_key, cell.stream), set()).add(cell.eps)
    return tuple(
        replace(cell, curve_eps=tuple(sorted(curves[cell.weights_key, cell.stream])))
        if isinstance(cell, RobustnessCell) and cell.curve != "each"
        else cell
        for cell in cells
    )


def generation_cell(part: GenerationPart, point: Point, code: Versions) -> GenerationCell:
    training = _training(point, code.content(point["model"], part.data, point["z_dim"]))
    return GenerationCell(
        data=part.data,
        training=training,
        changes=point["training"].changes.label(),
        evaluation=tuple(sorted(part.evaluation.model_dump().items())),
        limit=part.limit,
        precision=part.precision,
        versions=code(model=point["model"], z_dim=point["z_dim"]),
        **{axis: value for axis, value in point.items() if axis != "training"},
    )


def _training(point: Point, content: Content | None) -> Items:
    """The recipe of a point. Weights that a model brings are trained only where the suite says so."""
    recipe = point["training"]
    training = recipe.values.model_dump()
    if content is not None and content.brings_weights and not recipe.says_epochs:
        training["epochs"] = 0
    return tuple(sorted(training.items()))
