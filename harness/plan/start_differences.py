"""How the training of a model's first weights differs from the model's own. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epsbench.harness.plan.later import ROBUSTNESS_RECIPE


def start_differences(axes: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's first weights were trained with, as far as its own training has it otherwise.

    ``axes`` are those of a model with a start, as records have them. The keys are some of ``data``, ``subset``,
    ``augmentation``, ``defense`` and ``training``, in this order; the last has only those values of the recipe that
    differ. With a recipe of its own the defense is there in any case, so that models with different defenses that
    began alike have the same differences.
    """
    start, own = {"subset": "all", **axes["start"]}, {"subset": "all", **axes}
    different = {
        key: start[key] for key in ("data", "subset", "augmentation") if key in start and start[key] != own.get(key)
    }
    training: dict[str, Any] = {}
    if "training" in start:
        first, usual = {**ROBUSTNESS_RECIPE, **start["training"]}, {**ROBUSTNESS_RECIPE, **own.get("training", {})}
        training = {key: first[key] for key in sorted(first) if key not in usual or first[key] != usual[key]}
    if training or start["defense"] != own["defense"]:
        different["defense"] = start["defense"]
    return different | ({"training": training} if training else {})
