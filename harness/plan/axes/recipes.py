"""How models are trained and measured: the recipes of a suite as pydantic models, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.axes.base import Axis, Part
from epsbench.harness.plan.axes.explaining import explain


class RobustnessTraining(Part):
    """How classifiers are trained."""

    epochs: int = Field(default=10, ge=0, le=100_000, description="0 keeps the weights a model comes with")
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["one-cycle", "step", "cosine", "constant"] = "one-cycle"
    step_epochs: int = Field(default=7, ge=1, description="of the step schedule: epochs between two steps")
    gamma: float = Field(default=0.1, gt=0, le=1, description="of the step schedule: the factor of a step")
    average: float = Field(
        default=0.0, ge=0, lt=1, description="decay a step of the moving average of the weights; 0: no averaging"
    )
    nesterov: bool = Field(default=False, description="of sgd: Nesterov's momentum")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="of the cross-entropy trained on: the share given to all classes alike"
    )
    unsmoothed_epochs: int = Field(
        default=0, ge=0, description="of label_smoothing: the last epochs, in which labels are not smoothed"
    )
    clip: float = Field(
        default=0.0, ge=0, description="the largest norm of the gradient of all weights; 0: no clipping"
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="the weights after the last epoch, or after the one with the best validation accuracy",
    )
    small_epochs: int = Field(default=0, ge=0, description="the first epochs, in which images are made smaller")
    small_scale: float = Field(
        default=0.75, gt=0, lt=1, description="of small_epochs: the sides of their images, as a share of the whole ones"
    )

    @model_validator(mode="after")
    def _has_the_epochs(self) -> RobustnessTraining:
        _no_more_than_all(self, "small_epochs")
        _no_more_than_all(self, "unsmoothed_epochs")
        return self


class GenerationTraining(Part):
    """How generative models are trained."""

    epochs: int = Field(default=80, ge=0, le=100_000)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "one-cycle", "cosine"] = "constant"
    average: float = Field(
        default=0.0, ge=0, lt=1, description="decay a step of the moving average of the weights; 0: no averaging"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    clip: float = Field(
        default=0.0, ge=0, description="the largest norm of the gradient of all weights; 0: no clipping"
    )
    free_bits: float = Field(default=0.0, ge=0, description="bits of the mean rate of an image that cost nothing")
    beta_schedule: Literal["constant", "warm-up", "cyclical"] = Field(
        default="constant",
        description="β from the start, or rising from 0: once, or once in each of beta_cycles cycles",
    )
    warm_up_epochs: float = Field(default=10.0, gt=0, description="of the warm-up of β: epochs until it is reached")
    beta_cycles: int = Field(default=4, ge=1, description="of the cyclical β: it rises in the first half of a cycle")
    encoder_batches: Literal["none", "samples", "augmented", "both"] = Field(
        default="none",
        description="further images that the encoder alone learns from: samples of the decoder, or training images "
        "shifted by up to 1 pixel and turned by up to 5 degrees",
    )
    encoder_noise: float = Field(
        default=0.0, ge=0, description="standard deviation, in pixel units, of the noise on the images that it encodes"
    )
    moved_epochs: int = Field(
        default=0,
        ge=0,
        description="the first epochs, in which all parts learn from training images that are turned by up to 12 "
        "degrees, shifted by up to 1.5 pixels, stretched by up to 10 % and slanted by up to 15 %",
    )
    sample_epochs: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0, 10), description="samples are drawn after these epochs, and after the last"
    )
    keep: Literal["last", "best"] = Field(
        default="last", description="the weights after the last epoch, or after the one with the lowest validation bpd"
    )

    @model_validator(mode="after")
    def _has_the_moved_epochs(self) -> GenerationTraining:
        _no_more_than_all(self, "moved_epochs")
        return self


def _no_more_than_all(training: RobustnessTraining | GenerationTraining, key: str) -> None:
    """Raise `ValueError` where a key has more epochs than the whole training."""
    # One of both may be left to another table: `with_changes` puts both together.
    some: int = getattr(training, key)
    if {"epochs", key} <= training.model_fields_set and some > training.epochs > 0:
        raise ValueError(f"{key}: {some} are more than the {training.epochs} epochs of the training")


@dataclass(frozen=True)
class Changes:
    """What a value of the axis ``training`` changes in the recipe of its part; an empty table changes nothing."""

    items: tuple[tuple[str, Any], ...]
    """Keys of the recipe and their values, sorted by key."""

    def label(self) -> str:
        """``"encoder_batches = samples, epochs = 20"``; empty where nothing is changed."""
        return ", ".join(f"{key} = {value}" for key, value in self.items)

    def has(self, wanted: Mapping[str, Any]) -> bool:
        """Whether these keys are changed to these values."""
        return _has(dict(self.items), wanted)


@dataclass(frozen=True)
class Recipe:
    """The recipe of a point of the matrix. Equal recipes are one, whichever table says what is in them."""

    values: RobustnessTraining | GenerationTraining
    """Every key with its value."""
    says_epochs: bool
    """Whether the suite says how many epochs there are."""
    changes: Changes = field(compare=False)
    """What the axis changes in the recipe of the part."""

    def has(self, wanted: Mapping[str, Any]) -> bool:
        """Whether these keys have these values."""
        return _has(self.values.model_dump(), wanted)

    def changed(self, changes: Changes, path: str) -> Recipe:
        """This recipe with further changes. Raises `InputError`, with the key ``path``."""
        return _changed_recipe(self, changes, path)


@lru_cache
def _changed_recipe(recipe: Recipe, changes: Changes, path: str) -> Recipe:
    """As `Recipe.changed`. Every point of a suite asks several times, and a suite has few recipes."""
    says_epochs = recipe.says_epochs or "epochs" in dict(changes.items)
    return replace(with_changes(recipe.values, changes, path), says_epochs=says_epochs)


def _has(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        key in values and values[key] == (tuple(value) if isinstance(value, list) else value)
        for key, value in wanted.items()
    )


def with_changes(own: RobustnessTraining | GenerationTraining, changes: Changes, path: str) -> Recipe:
    """The recipe of a part with the changes of one value of the axis. Raises `InputError`, with the key ``path``."""
    both = own.model_dump() | dict(changes.items)
    try:
        values = type(own).model_validate(both)
    except ValidationError as error:
        raise InputError([f"{path}: {explain(each, type(own))}" for each in error.errors()]) from error
    return Recipe(values, "epochs" in own.model_fields_set | dict(changes.items).keys(), changes)


def check_keys(wanted: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a key that no recipe has."""
    known = {**RobustnessTraining.model_fields, **GenerationTraining.model_fields}
    if unknown := next((key for key in wanted if key not in known), None):
        raise ValueError(f"{unknown!r} is no key of a recipe{did_you_mean(unknown, known)}")


def _changed(table: Part) -> Changes:
    return Changes(tuple(sorted((key, getattr(table, key)) for key in table.model_fields_set)))


def read_changes(value: Any, base: Path) -> Changes:
    """The changes that a table inside another axis makes. Raises `ValueError` for anything else."""
    if not isinstance(value, dict) or not value:
        raise ValueError(f"must be a table of changes of the recipe, such as {{ epochs = 20 }}, not {value!r}")
    try:
        return _changed(RobustnessTraining.model_validate(value))
    except ValidationError as error:
        raise ValueError("; ".join(explain(each, RobustnessTraining) for each in error.errors())) from error


RobustnessRecipes = Annotated[list[Annotated[RobustnessTraining, AfterValidator(_changed)]], Axis()]
GenerationRecipes = Annotated[list[Annotated[GenerationTraining, AfterValidator(_changed)]], Axis()]


class GenerationEvaluation(Part):
    """How many random numbers each measure of a generative model takes. 0 leaves a measure out."""

    importance_samples: int = Field(
        default=100, ge=0, le=100_000, description="of z for every test image, for the importance-weighted bound"
    )
    long_importance_samples: int = Field(
        default=0, ge=0, le=1_000_000, description="the same for the first long_images test images only"
    )
    long_images: int = Field(default=1000, ge=1)
    refinement_steps: int = Field(
        default=0, ge=0, le=100_000, description="of Adam on each image's own posterior, for the amortisation gap"
    )
    refined_images: int = Field(default=1000, ge=1, description="how many test images that is done for, the first")
    prior_samples: int = Field(
        default=10_000, ge=0, le=1_000_000, description="of z from the prior, for the likelihood by plain Monte Carlo"
    )
    generated: int = Field(default=10_000, ge=0, le=1_000_000, description="images whose quality is measured")
    gradient_samples: int = Field(
        default=100, ge=0, le=100_000, description="estimates of one gradient, for the variance of its estimators"
    )

    @model_validator(mode="after")
    def _has_a_variance(self) -> GenerationEvaluation:
        if self.gradient_samples == 1:
            raise ValueError("gradient_samples: one estimate has no variance; give at least 2, or 0 to leave it out")
        return self
