"""A cell: one point of a suite with every default filled in, and the id that is a hash of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.harness.digest import cell_id, digest
from epsbench.harness.plan.axes.randomness import Randomness
from epsbench.harness.plan.epsilon import format_epsilon
from epsbench.harness.plan.later import GENERATION_RECIPE, ROBUSTNESS_RECIPE, measures, recipe
from epsbench.harness.plan.named import Items, Named, without_places
from epsbench.harness.plan.start_differences import start_differences

if TYPE_CHECKING:
    from epsbench.harness.plan.data.own import OwnData

NO_WEIGHTS = ("attack", "norm", "source", "corruption", "clean_logits")
"""Versions that do not decide the trained weights."""


def weights_code(code: Mapping[str, str]) -> dict[str, str]:
    """Those of a cell's versions that decide the trained weights."""
    return {key: version for key, version in code.items() if key not in NO_WEIGHTS}


DECIDE_WEIGHTS: dict[str, tuple[str, ...]] = {
    "robustness": (
        "task", "data", "model", "defense", "augmentation", "subset", "start", "training", "seed", "limit", "precision",
    ),
    "generation": ("task", "data", "model", "z_dim", "beta", "training", "seed", "limit", "precision"),
}  # fmt: skip
"""Task → the keys of a cell in canonical form that decide the trained weights."""


def decides_weights(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a cell, in canonical form or as in a record, that decides its trained weights."""
    return {key: cell[key] for key in DECIDE_WEIGHTS[cell["task"]] if key in cell}


def weights_key(cell: Mapping[str, Any], code: Mapping[str, str]) -> str:
    """The key of the trained weights of a cell, in canonical form or as in a record, with the versions of its code."""
    return digest({"cell": decides_weights(cell), "code": weights_code(code)})


def data_entry(data: str | OwnData) -> str | dict[str, Any]:
    """A cell's data as its record holds it: the name of a built-in, or a table."""
    return data if isinstance(data, str) else data.record()


class _Cell(ABC):
    """What both kinds of cell share: their id, and the key of their weights."""

    task: ClassVar[str]
    versions: tuple[tuple[str, str], ...]

    @abstractmethod
    def canonical(self) -> dict[str, Any]:
        """The cell as its record holds it."""

    @abstractmethod
    def label(self) -> str:
        """One line that distinguishes this cell from others of its suite."""

    @property
    def code(self) -> dict[str, str]:
        """Versions of the code behind the cell's names, and the identity of its data's split."""
        return dict(self.versions)

    @cached_property
    def id(self) -> str:
        """A hash of the cell and of the code behind it. Cells with equal ids measure the same."""
        return cell_id(self.canonical(), self.code)

    @cached_property
    def weights_key(self) -> str:
        """A hash of everything that decides the trained weights. Cells with equal keys share one trained model."""
        return weights_key(self.canonical(), self.code)


@dataclass(frozen=True)
class RobustnessCell(_Cell):
    """A classifier, how it is trained, and how it is attacked."""

    task: ClassVar[str] = "robustness"

    data: str | OwnData
    """The name of the data set, or data of the user's own."""
    model: Named
    """The architecture."""
    defense: Named
    """The training loss."""
    augmentation: str
    """What changes the training images: ``none``, ``crop-flip``, ``reflect-flip``, ``shift``, or one's own function."""
    training: Items
    """The recipe: epochs, batch size, optimizer, learning rate, …"""
    attack: Named
    """The attack, without norm and ε."""
    norm: str
    """The norm that bounds the perturbation: ``linf``, ``l2``, ``l1``, ``l0`` or ``l0-pixels``."""
    eps: Fraction
    """The radius of the ball, in pixel units for images in [0, 1]."""
    seed: int
    """Seeds the first weights, the order of training, augmentation and the attack's noise."""
    limit: int | None
    """At most so many examples of each split; None: all."""
    precision: str
    """As the suite has it: ``auto``, ``bf16``, ``fp16`` or ``float32``."""
    early_stop: bool
    """Whether an image leaves the attack once it fools the model."""
    curve: str = "each"
    """How the verdicts at several ε depend on each other: ``each``, ``nested`` or ``bisect``."""
    curve_eps: tuple[Fraction, ...] = ()
    """All ε of a nested or bisected curve, ascending; empty when ``curve`` is ``each``."""
    test_images: int | None = None
    """Clean and robust accuracy are measured on the first so many test images; None: on all."""
    subset: str = "all"
    """The part of the training split that is trained on."""
    source: RobustnessCell | None = None
    """A cell of the model whose gradients make the adversarial images; None: the cell's own model."""
    corruption: str = "none"
    """What is done to the test images before they are classified and attacked."""
    severity: int = 0
    """The severity of the corruption, from 1 to 5; 0 where there is none."""
    more_sources: tuple[RobustnessCell, ...] = ()
    """Cells of further models, where the images are made on the mean of several models' logits."""
    randomness: Randomness | None = None
    """How often a model that is random is asked for each answer; None: the model is not random."""
    start: RobustnessCell | None = None
    """A cell of the model whose trained weights training begins with; None: fresh weights."""
    changes: str = field(default="", compare=False)
    """What the axis ``training`` changes in the recipe, for labels."""
    versions: tuple[tuple[str, str], ...] = ()
    """Versions of the code behind each name, and the identity of the data's split, sorted by kind."""

    @property
    def stream(self) -> tuple[Any, ...]:
        """What cells of one model must have in common to be attacked together, as one curve over ε."""
        source = tuple(each.weights_key for each in self.sources)
        images = self.corruption, self.severity
        return (self.attack, self.norm, self.early_stop, self.curve, self.curve_eps, source, images)

    @property
    def sources(self) -> tuple[RobustnessCell, ...]:
        """Cells of all models whose gradients make the adversarial images; empty: the cell's own model."""
        return (self.source, *self.more_sources) if self.source else ()

    @property
    def models(self) -> Iterator[RobustnessCell]:
        """Cells of all models that this one needs: its own, those it follows, and those that each starts from."""
        yield self
        for other in (*self.sources, *([self.start] if self.start else [])):
            yield from other.models

    @property
    def model_axes(self) -> dict[str, Any]:
        """The axes that decide the weights, as records hold them: subset and start only when a suite sets them."""
        subset = {} if self.subset == "all" else {"subset": self.subset}
        start = {}
        if self.start:
            same = self.start.training == self.training
            other = {} if same else {"training": recipe(self.start.training, ROBUSTNESS_RECIPE)}
            start = {"start": {"data": data_entry(self.start.data), **self.start.model_axes, **other}}
        return {
            "model": without_places(self.model.as_dict()),
            "defense": without_places(self.defense.as_dict()),
            "augmentation": without_places(self.augmentation),
            **subset,
            **start,
            "seed": self.seed,
        }

    def canonical(self) -> dict[str, Any]:
        """The cell as its record holds it.

        A nested or bisected curve is there with all its ε. A source is there by the axes of its model: its data and
        recipe are the cell's own.
        """
        curve = {"curve_eps": [format_epsilon(eps) for eps in self.curve_eps]} if self.curve_eps else {}
        more = {"with": [each.model_axes for each in self.more_sources]} if self.more_sources else {}
        source = {"source": {**self.source.model_axes, **more}} if self.source else {}
        first = {} if self.test_images is None else {"test_images": self.test_images}
        random = {"randomness": self.randomness.model_dump()} if self.randomness else {}
        corruption = {"corruption": {"name": self.corruption, "severity": self.severity}} if self.severity else {}
        return {
            "task": self.task,
            "data": data_entry(self.data),
            **self.model_axes,
            "training": recipe(self.training, ROBUSTNESS_RECIPE),
            **source,
            "attack": without_places(self.attack.as_dict()),
            "norm": without_places(self.norm),
            "eps": format_epsilon(self.eps),
            **curve,
            **corruption,
            "limit": self.limit,
            **first,
            **random,
            "precision": self.precision,
            "early_stop": self.early_stop,
            "curve": self.curve,
        }

    def label(self) -> str:
        curve = "" if self.curve == "each" else f" ({self.curve})"
        attack = f"{self.attack.label()} {self.norm} ε={format_epsilon(self.eps)}{curve}"
        models = " and ".join(f"{each.trained_label()} (seed {each.seed})" for each in self.sources)
        source = f" from {models}" if models else ""
        images = f" on {self.corruption} {self.severity}" if self.severity else ""
        random = f" ({self.randomness.samples} samples, {self.randomness.votes} votes)" if self.randomness else ""
        return f"{self.data} {self.trained_label()}{random} · {attack}{source}{images} seed {self.seed}"

    def trained_label(self) -> str:
        """The model and how it was trained, without the seed, in a few words."""
        return " ".join([*self.trained_parts(), *([f"({self.changes})"] if self.changes else [])])

    def trained_parts(self) -> list[str]:
        """What decides the weights beside data, recipe and seed: ``["smallcnn", "trades", "none", "first-half"]``."""
        subset = [] if self.subset == "all" else [self.subset]
        start = [f"from {self.start_label()}"] if self.start else []
        return [self.model.label(), self.defense.label(), self.augmentation, *subset, *start]

    def start_label(self) -> str:
        """The `start_differences` with the values of a suite: ``"first-half"``, ``"none (epochs = 18)"``."""
        if self.start is None:
            return ""
        different = start_differences(self.canonical())
        values = {"data": self.start.data, "subset": self.start.subset, "augmentation": self.start.augmentation}
        parts = [str(value) for key, value in values.items() if key in different]
        parts += [self.start.defense.label()] if "defense" in different else []
        recipe = ", ".join(f"{key} = {value}" for key, value in different.get("training", {}).items())
        return " ".join([*parts, *([f"({recipe})"] if recipe else [])]) or "the same training"


@dataclass(frozen=True)
class GenerationCell(_Cell):
    """A generative model, how it is trained, and how it is measured."""

    task: ClassVar[str] = "generation"

    data: str | OwnData
    """The name of the data set, or data of the user's own."""
    model: Named
    """The architecture."""
    z_dim: int
    """The number of latent dimensions."""
    beta: float
    """The weight of the KL term in the training loss."""
    training: Items
    """The recipe: epochs, batch size, learning rate, …"""
    evaluation: Items
    """How many random numbers each measure takes. The trained weights do not depend on it."""
    seed: int
    """Seeds the first weights, the order of training, and all noise."""
    limit: int | None
    """At most so many examples of each split; None: all."""
    precision: str
    """As the suite has it: ``auto``, ``bf16``, ``fp16`` or ``float32``."""
    changes: str = field(default="", compare=False)
    """What the axis ``training`` changes in the recipe, for labels."""
    versions: tuple[tuple[str, str], ...] = ()
    """The version of the model's code, and the identity of the data's split, sorted by kind."""

    def canonical(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "data": data_entry(self.data),
            "model": without_places(self.model.as_dict()),
            "z_dim": self.z_dim,
            "beta": self.beta,
            "training": recipe(self.training, GENERATION_RECIPE),
            "evaluation": measures(self.evaluation),
            "seed": self.seed,
            "limit": self.limit,
            "precision": self.precision,
        }

    def label(self) -> str:
        changes = f" ({self.changes})" if self.changes else ""
        return f"{self.data} {self.model.label()} z={self.z_dim} β={self.beta:g}{changes} seed {self.seed}"


Cell = RobustnessCell | GenerationCell


def models_of_record(cell: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """As `RobustnessCell.models`, of a cell in the form of a record: the axes of each model."""
    yield cell
    source = cell.get("source") or {}
    for other in (source, *source.get("with", []), cell.get("start") or {}):
        if other:
            yield from models_of_record({key: value for key, value in other.items() if key != "with"})
