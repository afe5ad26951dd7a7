"""What the names in a recipe stand for: optimizers and schedules of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

Recipe = Mapping[str, Any]
"""The ``training`` table of a suite with every default filled in."""

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], Recipe], torch.optim.Optimizer]] = {
    "adam": lambda weights, recipe: torch.optim.Adam(
        weights, recipe["learning_rate"], weight_decay=recipe.get("weight_decay", 0.0), fused=_real(weights)
    ),
    "adamw": lambda weights, recipe: torch.optim.AdamW(
        weights, recipe["learning_rate"], weight_decay=recipe.get("weight_decay", 0.0), fused=_real(weights)
    ),
    "sgd": lambda weights, recipe: torch.optim.SGD(
        weights,
        recipe["learning_rate"],
        recipe["momentum"],
        weight_decay=recipe.get("weight_decay", 0.0),
        nesterov=recipe.get("nesterov", False),
        fused=_real(weights),
    ),
}


def _real(weights: list[nn.Parameter]) -> bool:
    """Whether all weights are real numbers: torch has no fused optimizers of complex ones."""
    return all(weight.is_floating_point() for weight in weights)


def one_cycle(epoch: float, recipe: Recipe) -> float:
    """From 1/25 up to 1 over the first 30 %, then down to almost 0, both along a cosine (Smith & Topin, 2018)."""
    done, warm_up, start = epoch / recipe["epochs"], 0.3, 1 / 25
    if done < warm_up:
        return start + (1 - start) * (1 - math.cos(math.pi * done / warm_up)) / 2
    return max(1e-5, (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2)


def in_steps(epoch: float, recipe: Recipe) -> float:
    """``gamma`` to the power of the number of completed periods of ``step_epochs`` epochs."""
    return recipe["gamma"] ** (int(epoch) // recipe["step_epochs"])


def cosine(epoch: float, recipe: Recipe) -> float:
    """From 1 down to almost 0 along a cosine (Loshchilov & Hutter, 2017, eq. 5, without restarts)."""
    return max(1e-5, (1 + math.cos(math.pi * epoch / recipe["epochs"])) / 2)


def constant(epoch: float, recipe: Recipe) -> float:
    """Always 1."""
    return 1.0


SCHEDULES: dict[str, Callable[[float, Recipe], float]] = {
    "one-cycle": one_cycle,
    "step": in_steps,
    "cosine": cosine,
    "constant": constant,
}
"""By name: the share of ``learning_rate`` at a fractional epoch, from 0."""


def rising(epoch: float, recipe: Recipe) -> float:
    """From 0 to 1 along a line over the first ``warm_up_epochs`` (Bowman et al., 2016, section 3.1)."""
    return min(1.0, epoch / recipe["warm_up_epochs"])


def cyclical(epoch: float, recipe: Recipe) -> float:
    """From 0 to 1 along a line over the first half of each cycle, then 1 (Fu et al., 2019, eq. 6, R = 0.5)."""
    length = recipe["epochs"] / recipe["beta_cycles"]
    return min(1.0, 2 * (epoch % length) / length)


BETA_SCHEDULES: dict[str, Callable[[float, Recipe], float]] = {
    "constant": constant,
    "warm-up": rising,
    "cyclical": cyclical,
}
"""By name: the share of β at a fractional epoch, from 0."""
