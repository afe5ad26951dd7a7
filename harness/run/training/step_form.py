"""Which form of a training step is the fastest on this machine, found by trying: layout in memory and compilation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.harness.run.machine.timing import seconds
from epsbench.harness.run.speed.compiling import compiled
from epsbench.harness.run.speed.convolutions import SUBPIXEL

Objective = Callable[..., tuple[Tensor, Tensor]]
"""Of a batch's tensors: the loss, a scalar to go backward from, and a scalar to watch."""

LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
USUAL = "channels-last"
SHORT_SECONDS = 60.0  # of training: nothing is tried for less
# What compiling saved of the eager time where it was tried, a VAE on two cores, and what it cost. The GPU's figures
# are a guess until one is measured; a wrong guess costs seconds, never a number.
EXPECTED_GAIN = {"cpu": 0.25, "cuda": 0.4}
EXPECTED_COMPILE_SECONDS = {"cpu": 20.0, "cuda": 40.0}


@dataclass
class Form:
    """How a training step is computed. ``seconds`` is what finding out cost, all trials together."""

    layout: str = USUAL
    compiled: bool = False
    subpixel: bool = False
    seconds: float = 0.0
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [self.layout, SUBPIXEL if self.subpixel else "", "compiled" if self.compiled else ""]
        return ", ".join(part for part in parts if part)

    def entries(self) -> dict[str, Any]:
        """What a record's ``training`` says of it; refused forms only where there are any."""
        refused = {"refused": self.refused} if self.refused else {}
        return {"form": str(self), "trial_seconds": self.seconds, **refused}

    def apply(self, network: nn.Module, objective: Objective) -> Objective:
        """Bring ``network`` into this form in place, and return the objective in it."""
        network.to(memory_format=LAYOUTS[self.layout])
        return compiled(objective) if self.compiled else objective


Make = Callable[[Form], Objective]
"""Brings a network into a form, in place, and returns its objective in it."""


def fastest_form(
    network: nn.Module,
    make: Make,
    batch: tuple[Tensor, ...],
    steps: int,
    wanted: str,
    layouts: Sequence[str] = tuple(LAYOUTS),
) -> Form:
    """The fastest form of what ``make`` makes, on a ``batch`` like the ``steps`` ahead; gradients are left at None.

    ``wanted`` is "off" (the usual form), "on" (compiled wherever that works) or "auto": what is faster by measurement,
    where the training is long enough to earn the trials back. The network is left in the form last tried.
    """
    if wanted == "off" or steps < 1:
        return Form()
    began = time.perf_counter()
    device = batch[0].device
    form = Form()
    eager = _step_seconds(network, make(form), batch)
    if wanted == "auto" and eager * steps < SHORT_SECONDS:
        return Form(seconds=time.perf_counter() - began)
    for layout in set(layouts) - {USUAL}:
        other = Form(layout=layout)
        if (slower := _step_seconds(network, make(other), batch)) < 0.95 * eager:
            form, eager = other, slower
    earned = eager * steps * EXPECTED_GAIN[device.type]
    if wanted == "on" or earned > EXPECTED_COMPILE_SECONDS[device.type]:
        form = _compiled(form, network, make, batch, eager, wanted)
    form.seconds = time.perf_counter() - began
    return form


def _compiled(form: Form, network: nn.Module, make: Make, batch: tuple[Tensor, ...], eager: float, wanted: str) -> Form:
    """The form with compilation, if that works, says the same, and is faster or ``wanted``."""
    candidate = Form(layout=form.layout, compiled=True)
    expected = _gradient(network, make(form), batch)
    try:
        quick = make(candidate)
        found = _gradient(network, quick, batch)
    # Dynamo and Inductor raise their own RuntimeErrors; a machine without a C++ compiler an OSError.
    except (RuntimeError, OSError) as error:
        network.zero_grad(set_to_none=True)
        form.refused.append(f"torch.compile: {' '.join(str(error).split())[:300]}")
        return form
    if not float((found - expected).norm()) <= 0.1 * float(expected.norm()):  # so that NaN is told as well
        form.refused.append("torch.compile: the compiled step has another gradient")
        return form
    return candidate if wanted == "on" or _step_seconds(network, quick, batch) < 0.98 * eager else form


def _step_seconds(network: nn.Module, objective: Objective, batch: tuple[Tensor, ...]) -> float:
    _gradient(network, objective, batch)  # the first call chooses kernels
    return seconds(lambda: _backward(network, objective, batch), batch[0].device)


def _backward(network: nn.Module, objective: Objective, batch: tuple[Tensor, ...]) -> None:
    loss, _ = objective(*batch)
    loss.backward()
    network.zero_grad(set_to_none=True)


def _gradient(network: nn.Module, objective: Objective, batch: tuple[Tensor, ...]) -> Tensor:
    """The gradient of the loss with respect to all weights, as one vector."""
    loss, _ = objective(*batch)
    loss.backward()
    parts = [weight.grad.float().flatten() for weight in network.parameters() if weight.grad is not None]
    gradient = torch.cat(parts) if parts else torch.zeros(0, device=loss.device)
    network.zero_grad(set_to_none=True)
    return gradient
