"""The values that a training takes and returns: settings, hooks, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.recipe import Recipe
from epsbench.harness.run.training.step_form import Form
from epsbench.models.defenses import Defense

Curves = dict[str, list[float]]
"""The curves of a training by name, each with one value per epoch."""


@dataclass(frozen=True)
class Method:
    """What a suite says of the training of a classifier. It decides the weights, together with data and seed."""

    defense: Defense
    """The training loss."""

    augmentation: str
    """The name of the augmentation, or ``"none"``."""

    recipe: Recipe
    """Epochs, batch size, optimizer and schedule."""

    base: Path = Path()
    """The folder that an augmentation of the user's own is named from."""


@dataclass(frozen=True)
class Settings:
    """How a training is run. Only ``seed`` and ``precision`` change the result by more than rounding."""

    seed: int
    """Seeds the order of the examples, the augmentation, dropout and the noise of attacks."""

    precision: str
    """The precision of the network: "float32", "bf16" or "fp16"."""

    compile: str = "off"
    """Whether the step is compiled: "off", "on", or "auto" (only if that saves time)."""

    subpixel: bool = True
    """Whether strided convolutions may use the faster backward pass of `epsbench.harness.run.speed.convolutions`."""

    most_threads: int = 1
    """How many threads of a CPU may be tried; 1: torch's own number is taken."""

    checkpoint: Checkpoint = Checkpoint(None)  # noqa: RUF009 - without a path it saves nothing
    """Where the training is saved from time to time, and resumed from."""


@dataclass(frozen=True)
class Hooks:
    """Functions that a training calls."""

    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, values: None
    """Called after every epoch, with its number from 1 and its value of every curve."""

    on_step: Callable[[], None] = lambda: None
    """Called after every step."""

    on_resume: Callable[[int], None] = lambda epoch: None
    """Called once if the training is resumed from a checkpoint, with the number of epochs already done."""

    on_pictures: Callable[[int, Any], None] = lambda epoch, network: None
    """Called before the first epoch, after epoch 10 and after the last, with the epoch and the network."""


@dataclass(frozen=True)
class Training:
    """The result of a training, besides the weights."""

    curves: Curves
    """One value per epoch for each curve."""

    seconds: float
    """Seconds of steps and validations, over all resumptions. Epochs that were lost to a kill do not count."""

    watch_seconds: float
    """Seconds of `epsbench.harness.run.training.watch`; not part of ``seconds``."""

    resumed: int
    """How often the training was resumed from a checkpoint."""

    kept_epoch: int | None
    """The epoch whose weights were kept, from 1, where the recipe keeps the best; None: those after the last."""

    form: Form
    """The form in which the steps were computed. The trials for it are not part of ``seconds``."""


def finish(network: nn.Module) -> None:
    """Bring a trained network into the state of a loaded one: evaluation mode, contiguous weights, no gradients.

    Measures of a trained network and of the same network loaded later are then equal, bit for bit.
    """
    network.zero_grad(set_to_none=True)
    network.eval().to(memory_format=torch.contiguous_format)
