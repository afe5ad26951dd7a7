"""Settings added after the first records. At their defaults they are left out of cells, so old ids stay valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ROBUSTNESS_RECIPE: Mapping[str, Any] = {
    "average": 0.0, "nesterov": False, "label_smoothing": 0.0, "clip": 0.0, "keep": "last",
    "small_epochs": 0, "small_scale": 0.75, "unsmoothed_epochs": 0,
}  # fmt: skip
"""Keys of the recipe of a classifier, with their defaults."""

GENERATION_RECIPE: Mapping[str, Any] = {
    "optimizer": "adam", "weight_decay": 0.0, "momentum": 0.9, "clip": 0.0, "free_bits": 0.0,
    "beta_schedule": "constant", "warm_up_epochs": 10.0, "beta_cycles": 4, "encoder_batches": "none",
    "encoder_noise": 0.0, "moved_epochs": 0, "sample_epochs": (0, 10), "keep": "last",
}  # fmt: skip
"""Keys of the recipe of a generative model, with their defaults."""

MEASURES: Mapping[str, tuple[str, ...]] = {"refinement_steps": ("refined_images",)}
"""Measures of generative models that are left out while they are 0, each with the keys that only it uses."""


def recipe(training: Sequence[tuple[str, Any]], later: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as records hold it, without the keys of ``later`` that have their default."""
    kept = {key: value for key, value in training if key not in later or value != later[key]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def measures(evaluation: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The settings of an evaluation as records hold them, without the `MEASURES` that are 0."""
    settings = dict(evaluation)
    absent = [name for name in MEASURES if not settings.get(name)]
    left_out = {key for name in absent for key in (name, *MEASURES[name])}
    return {key: value for key, value in settings.items() if key not in left_out}
