"""The fastest form of a training step on this machine: a few layouts in memory and compilation are timed."""

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
from epsbench.harness.run.speed.reshaping import RESHAPED

Step = Callable[..., tuple[Tensor, Tensor]]
"""Takes the tensors of a batch.

Returns its loss, a scalar to go backward from, and a detached scalar or vector to average.
"""

LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
USUAL = "channels-last"
SHORT_SECONDS = 60.0  # a shorter training is not worth the trials
# The share of the eager time that compiling saves, and the seconds that it takes. "cpu": one VAE on two AMD EPYC
# (Zen 5) cores, torch 2.14 or 2.15, n not recorded, not measured again. "cuda": an estimate, never measured. A wrong
# value costs seconds and changes no number.
EXPECTED_GAIN = {"cpu": 0.25, "cuda": 0.4}
EXPECTED_COMPILE_SECONDS = {"cpu": 20.0, "cuda": 40.0}


@dataclass
class Form:
    """How a training step is computed."""

    layout: str = USUAL
    """The memory format of the weights: a name in `LAYOUTS`."""

    compiled: bool = False
    """Whether the step is compiled by torch.compile."""

    subpixel: bool = False
    """Whether strided convolutions use the backward pass of `epsbench.harness.run.speed.convolutions`."""

    views_copied: bool = False
    """Whether views of the network may copy: `epsbench.harness.run.speed.reshaping`."""

    threads: int = 0
    """How many threads a CPU computes the steps with; 0: as many as torch has."""

    seconds: float = 0.0
    """What all trials took together."""

    refused: list[str] = field(default_factory=list)
    """The forms that were tried and did not work, each with its reason."""

    def __str__(self) -> str:
        parts = [
            self.layout,
            RESHAPED if self.views_copied else "",
            SUBPIXEL if self.subpixel else "",
            "compiled" if self.compiled else "",
        ]
        return ", ".join(part for part in parts if part)

    def entries(self) -> dict[str, Any]:
        """The entries of a record's ``training`` about the form; ``refused`` is there only if a form was refused."""
        refused = {"refused": self.refused} if self.refused else {}
        threads = {"threads": self.threads} if self.threads else {}
        return {"form": str(self), **threads, "trial_seconds": self.seconds, **refused}

    def apply(self, network: nn.Module, step: Step) -> Step:
        """Bring ``network`` into this form in place, and return the step in this form."""
        network.to(memory_format=LAYOUTS[self.layout])
        return compiled(step) if self.compiled else step


Make = Callable[[Form], Step]
"""Brings a network into a form, in place, and returns its step in this form."""


def fastest_form(
    network: nn.Module,
    make: Make,
    batch: tuple[Tensor, ...],
    steps: int,
    wanted: str,
    layouts: Sequence[str] = tuple(LAYOUTS),
) -> Form:
    """The fastest form of the step that ``make`` returns, timed on ``batch``.

    ``batch`` is as large as those of the ``steps`` ahead. ``wanted`` is "off" (the usual form), "on" (compiled wherever
    that works) or "auto" (the fastest form, if the training is long enough to make up for the trials). The network is
    left in the last form tried, its gradients None.
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
    """The form with compilation, if it works, has the same gradient, and is faster or ``wanted`` is "on"."""
    candidate = Form(layout=form.layout, compiled=True)
    expected = _gradient(network, make(form), batch)
    try:
        quick = make(candidate)
        gradient = _gradient(network, quick, batch)
    # Dynamo and Inductor raise their own errors, a machine without a C++ compiler an OSError, and the model anything.
    except Exception as error:  # noqa: BLE001
        network.zero_grad(set_to_none=True)
        form.refused.append(f"torch.compile: {' '.join(str(error).split())[:300]}")
        return form
    if not float((gradient - expected).norm()) <= 0.1 * float(expected.norm()):  # also true if there are NaNs
        form.refused.append("torch.compile: the compiled step has another gradient")
        return form
    return candidate if wanted == "on" or _step_seconds(network, quick, batch) < 0.98 * eager else form


def _step_seconds(network: nn.Module, step: Step, batch: tuple[Tensor, ...]) -> float:
    _gradient(network, step, batch)  # the first call chooses kernels
    return seconds(lambda: _backward(network, step, batch), batch[0].device)


def _backward(network: nn.Module, step: Step, batch: tuple[Tensor, ...]) -> None:
    loss, _ = step(*batch)
    loss.backward()
    network.zero_grad(set_to_none=True)


def _gradient(network: nn.Module, step: Step, batch: tuple[Tensor, ...]) -> Tensor:
    """The gradient of the loss with respect to all weights, as one vector."""
    loss, _ = step(*batch)
    loss.backward()
    parts = [weight.grad.float().flatten() for weight in network.parameters() if weight.grad is not None]
    gradient = torch.cat(parts) if parts else torch.zeros(0, device=loss.device)
    network.zero_grad(set_to_none=True)
    return gradient
