"""A cell: one point of a suite with every default filled in, and the id that says which point it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar

from epsbench.harness.plan.epsilon import format_epsilon

Items = tuple[tuple[str, Any], ...]

# Keys of a recipe that came after the first records, by the value that leaves everything as it was before them.
# At that value they are left out of a cell's canonical form, so that records made without them keep their ids.
LATER_KEYS: dict[str, Any] = {"average": 0.0}
# The same for measures of generative models: each with the keys that mean nothing while it is left out.
LATER_MEASURES: dict[str, tuple[str, ...]] = {"refinement_steps": ("refined_images",)}


class Table(tuple[tuple[str, Any], ...]):
    """A mapping as a hashable value: its items in the order of their keys."""

    __slots__ = ()


def freeze(value: Any) -> Any:
    """A JSON-able value as a hashable one: lists become tuples, tables become `Table`, fractions their spelling.

    Raises `TypeError` for what JSON cannot hold.
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
    """The JSON-able value that `freeze` froze."""
    if isinstance(value, Table):
        return {key: thaw(item) for key, item in value}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Named:
    """A name with its parameters resolved: every default filled in, sorted by key, values frozen.

    ``changed`` names the parameters that differ from their defaults; it is derived, so no part of equality.
    """

    name: str
    params: Items = ()
    changed: tuple[str, ...] = field(default=(), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """``{"name": ..., **parameters}``, as in a record."""
        return {"name": self.name} | {key: thaw(value) for key, value in self.params}

    def label(self) -> str:
        """``"pgd(steps=40)"``: the name with the parameters that differ from their defaults."""
        shown = ", ".join(f"{key}={thaw(value)}" for key, value in self.params if key in self.changed)
        return f"{self.name}({shown})" if shown else self.name


def recipe(training: Items) -> dict[str, Any]:
    """A recipe as it stands in a record: see `LATER_KEYS`."""
    return {key: value for key, value in training if key not in LATER_KEYS or value != LATER_KEYS[key]}


def measures(evaluation: Items) -> dict[str, Any]:
    """An evaluation as it stands in a record: see `LATER_MEASURES`."""
    asked = dict(evaluation)
    absent = [name for name in LATER_MEASURES if not asked.get(name)]
    gone = {key for name in absent for key in (name, *LATER_MEASURES[name])}
    return {key: value for key, value in asked.items() if key not in gone}


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Cell:
    """What both kinds of cell share: where its id and its weights' key come from."""

    task: ClassVar[str]
    _decides_weights: ClassVar[tuple[str, ...]]

    def canonical(self) -> dict[str, Any]:
        """The cell as it stands in its record."""
        raise NotImplementedError

    @property
    def code(self) -> dict[str, str]:
        """Versions of the code behind its names, and the identity of its data's split."""
        raise NotImplementedError

    @cached_property
    def id(self) -> str:
        """A hash of the cell and of the code behind it: equal ids, equal measurements."""
        return digest({"cell": self.canonical(), "code": self.code})

    @cached_property
    def weights_key(self) -> str:
        """A hash of all that determines the trained weights: cells that share it share one model."""
        canonical = self.canonical()
        decides = {key: canonical[key] for key in self._decides_weights if key in canonical}
        code = {key: version for key, version in self.code.items() if key not in ("attack", "norm", "source")}
        return digest({"cell": decides, "code": code})


@dataclass(frozen=True)
class RobustnessCell(_Cell):
    """A classifier, how it was trained, and the attack it has to stand. ``eps`` is in pixel units.

    ``start`` is a cell of the model whose trained weights training begins with; None: fresh ones. ``source`` is the
    cell of the model whose gradients make the images, under the same attack; None: its own.
    """

    task: ClassVar[str] = "robustness"
    _decides_weights: ClassVar[tuple[str, ...]] = (
        "task", "data", "model", "defense", "augmentation", "subset", "start", "training", "seed", "limit", "precision",
    )  # fmt: skip

    data: str
    model: Named
    defense: Named
    augmentation: str
    training: Items
    attack: Named
    norm: str
    eps: Fraction
    seed: int
    limit: int | None
    precision: str
    early_stop: bool
    curve: str = "each"
    curve_eps: tuple[Fraction, ...] = ()
    subset: str = "all"
    source: RobustnessCell | None = None
    start: RobustnessCell | None = None
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def code(self) -> dict[str, str]:
        return dict(self.versions)

    @property
    def stream(self) -> tuple[Any, ...]:
        """What cells must share, besides their weights, to be attacked as one curve over ε."""
        source = self.source.weights_key if self.source else None
        return (self.attack, self.norm, self.early_stop, self.curve, self.curve_eps, source)

    @property
    def model_axes(self) -> dict[str, Any]:
        """The axes that decide the weights, as they stand in a record: subset and start only where there is one."""
        subset = {} if self.subset == "all" else {"subset": self.subset}
        start = {"start": {"data": self.start.data, **self.start.model_axes}} if self.start else {}
        return {
            "model": self.model.as_dict(),
            "defense": self.defense.as_dict(),
            "augmentation": self.augmentation,
            **subset,
            **start,
            "seed": self.seed,
        }

    def canonical(self) -> dict[str, Any]:
        """As it stands in its record; on a curve whose ε depend on each other, with all of them.

        A source that is another model stands there by its own axes; what else made it is the cell's own too.
        """
        curve = {"curve_eps": [format_epsilon(eps) for eps in self.curve_eps]} if self.curve_eps else {}
        source = {"source": self.source.model_axes} if self.source else {}
        return {
            "task": self.task,
            "data": self.data,
            **self.model_axes,
            "training": recipe(self.training),
            **source,
            "attack": self.attack.as_dict(),
            "norm": self.norm,
            "eps": format_epsilon(self.eps),
            **curve,
            "limit": self.limit,
            "precision": self.precision,
            "early_stop": self.early_stop,
            "curve": self.curve,
        }

    def label(self) -> str:
        """One line that tells this cell from its neighbours."""
        curve = "" if self.curve == "each" else f" ({self.curve})"
        attack = f"{self.attack.label()} {self.norm} ε={format_epsilon(self.eps)}{curve}"
        source = f" from {self.source.trained_label()} (seed {self.source.seed})" if self.source else ""
        return f"{self.data} {self.trained_label()} · {attack}{source} seed {self.seed}"

    def trained_label(self) -> str:
        """The model and how it was trained, seed apart, in few words."""
        subset = "" if self.subset == "all" else f" {self.subset}"
        start = f" from {self.start.data} {self.start.trained_label()}" if self.start else ""
        return f"{self.model.label()} {self.defense.label()} {self.augmentation}{subset}{start}"


@dataclass(frozen=True)
class GenerationCell(_Cell):
    """A generative model and how it was trained."""

    task: ClassVar[str] = "generation"
    _decides_weights: ClassVar[tuple[str, ...]] = (
        "task", "data", "model", "z_dim", "beta", "training", "seed", "limit", "precision",
    )  # fmt: skip

    data: str
    model: Named
    z_dim: int
    beta: float
    training: Items
    evaluation: Items
    seed: int
    limit: int | None
    precision: str
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def code(self) -> dict[str, str]:
        return dict(self.versions)

    def canonical(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "data": self.data,
            "model": self.model.as_dict(),
            "z_dim": self.z_dim,
            "beta": self.beta,
            "training": dict(self.training),
            "evaluation": measures(self.evaluation),
            "seed": self.seed,
            "limit": self.limit,
            "precision": self.precision,
        }

    def label(self) -> str:
        """One line that tells this cell from its neighbours."""
        return f"{self.data} {self.model.label()} z={self.z_dim} β={self.beta:g} seed {self.seed}"


Cell = RobustnessCell | GenerationCell
