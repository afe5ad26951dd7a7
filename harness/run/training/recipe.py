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
        weights, recipe["learning_rate"], weight_decay=recipe.get("weight_decay", 0.0), fused=True
    ),
    "sgd": lambda weights, recipe: torch.optim.SGD(
        weights,
        recipe["learning_rate"],
        recipe["momentum"],
        weight_decay=recipe["weight_decay"],
        nesterov=recipe.get("nesterov", False),
        fused=True,
    ),
}


def one_cycle(epoch: float, recipe: Recipe) -> float:
    """From 1/25 up to 1 over the first 30 %, then down to almost 0, both along a cosine (Smith & Topin, 2018)."""
    done, warm_up, start = epoch / recipe["epochs"], 0.3, 1 / 25
    if done < warm_up:
        return start + (1 - start) * (1 - math.cos(math.pi * done / warm_up)) / 2
    return max(1e-5, (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2)


def in_steps(epoch: float, recipe: Recipe) -> float:
    """``gamma`` to the power of the number of completed periods of ``step_epochs`` epochs."""
    return recipe["gamma"] ** (int(epoch) // recipe["step_epochs"])


def constant(epoch: float, recipe: Recipe) -> float:
    """Always 1."""
    return 1.0


SCHEDULES: dict[str, Callable[[float, Recipe], float]] = {
    "one-cycle": one_cycle,
    "step": in_steps,
    "constant": constant,
}
"""By name: the share of ``learning_rate`` at a fractional epoch, from 0."""
