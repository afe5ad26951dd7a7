"""How a training is run, as opposed to what it computes, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.step_form import Form

Curves = dict[str, list[float]]
"""Numbers of a training by name, one value an epoch."""


@dataclass(frozen=True)
class Settings:
    """How a training is run. Only ``seed`` and ``precision`` decide what comes out, up to rounding."""

    seed: int
    """Seeds the order of the examples, the augmentation, dropout and the noise of attacks."""

    precision: str
    """What the network computes in: "float32", "bf16" or "fp16"."""

    compile: str = "off"
    """Whether the step is compiled: "off", "on", or "auto" where it pays for itself."""

    subpixel: bool = True
    """Whether strided convolutions may use the faster backward pass of `epsbench.harness.run.speed.convolutions`."""

    checkpoint: Checkpoint = Checkpoint(None)  # noqa: RUF009 - one without a path keeps nothing and has no state
    """Where the training is saved on its way, and resumed from."""


@dataclass(frozen=True)
class Hooks:
    """Functions that a training calls on its way."""

    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, values: None
    """After every epoch: its number, from 1, and its value of every curve."""

    on_step: Callable[[], None] = lambda: None
    """After every step."""

    on_resume: Callable[[int], None] = lambda epoch: None
    """Once, where the training goes on from a checkpoint: the number of epochs that are done."""

    on_pictures: Callable[[int, Any], None] = lambda epoch, network: None
    """Of a generative model: before the first epoch, after epoch 10 and at the end; the epoch and the network."""


@dataclass(frozen=True)
class Training:
    """What a training gave and what it took."""

    curves: Curves
    """Its curves, one value an epoch."""

    seconds: float
    """What steps and validations took, in all sittings, of the epochs that count."""

    watch_seconds: float
    """What `epsbench.harness.run.training.watch` took; no part of ``seconds``."""

    resumed: int
    """How often it went on from a checkpoint."""

    form: Form
    """How its steps were computed; finding out is no part of ``seconds``."""


def finish(network: nn.Module) -> None:
    """Leave a trained network as a loaded one: evaluation mode, contiguous weights, no gradients.

    Both then measure the same to the last bit.
    """
    network.zero_grad(set_to_none=True)
    network.eval().to(memory_format=torch.contiguous_format)
