"""The fastest form of a model that still computes the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from epsbench.harness.findings import Finding, finding, slower
from epsbench.harness.run.attack.gradient import cosines, largest
from epsbench.harness.run.attack.judge import frozen_copy
from epsbench.harness.run.attack.random_model import RandomVictim
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.memory import is_out_of_memory
from epsbench.harness.run.speed.convolutions import SUBPIXEL, subpixel
from epsbench.harness.run.speed.folding import fold_batch_norm
from epsbench.harness.run.speed.program import UNTRACEABLE
from epsbench.harness.run.speed.reshaping import RESHAPED, reshape_views


def prepare(model: nn.Module, device: torch.device, precision: str, x: Tensor, y: Tensor) -> Victim:
    """The fastest form of the model that still computes the same function on the probe ``x`` (N, C, H, W), ``y`` (N,).

    Folded batch norm and channels-last are tried first. A model that refuses either takes the plainer form, and a
    finding says so. A model that cannot be differentiated gets a finding too: attacks along its gradients will raise,
    the others run.
    """
    bare = Victim(frozen_copy(model, device), device, "float32", "plain")
    findings: list[Finding] = []
    try:
        reference, reference_logits = bare.slope(x, y), bare(x).detach()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        _not_differentiable(bare, error)
        return bare
    for candidate in _forms(model, device, x, findings):
        if _agrees(candidate, x, y, reference, reference_logits, findings):
            candidate.precision = _precision(candidate, precision, x, y, findings)
            candidate.findings = findings
            candidate.forwards = candidate.backwards = 0
            return candidate
    return Victim(bare.network, device, _precision(bare, precision, x, y, findings), "plain", findings=findings)


def prepare_random(
    model: nn.Module, device: torch.device, precision: str, samples: int, x: Tensor, y: Tensor
) -> RandomVictim:
    """The model as it is, with ``samples`` passes an answer: two forms of a random model cannot be compared.

    A finding says where it cannot be differentiated, or cannot run in that precision on ``x`` (N, C, H, W), ``y`` (N,).
    """
    form = f"plain, {samples} passes" if samples > 1 else "plain, 1 pass"
    victim = RandomVictim(frozen_copy(model, device), device, "float32", form, samples=samples)
    try:
        victim.slope(x, y)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        _not_differentiable(victim, error)
        return victim
    victim.precision = _precision(victim, precision, x, y, victim.findings)
    victim.forwards = victim.backwards = 0
    return victim


def _not_differentiable(victim: Victim, error: Exception) -> None:
    victim.differentiable = False
    victim.findings.append(finding("not-differentiable", f"its gradient raises {type(error).__name__}: {error}"))


def _forms(model: nn.Module, device: torch.device, x: Tensor, findings: list[Finding]) -> Iterator[Victim]:
    plain = frozen_copy(model, device)
    has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    if has_batch_norm:
        try:
            folded = fold_batch_norm(plain)
        except UNTRACEABLE as error:
            findings.append(slower("not-folded", "batch norm is not folded: torch.fx cannot trace this model", error))
        else:
            folded = folded.requires_grad_(False).to(memory_format=torch.channels_last)
            yield from _with_and_without(folded, device, "folded, channels-last", x)
    last = copy_of(plain).to(memory_format=torch.channels_last)
    yield from _with_and_without(last, device, "channels-last", x)


def _with_and_without(network: nn.Module, device: torch.device, form: str, x: Tensor) -> Iterator[Victim]:
    """The form with sub-pixel gradients, on a CPU and where a layer gains by them; then the form itself."""
    if device.type == "cpu" and subpixel(quick := copy_of(network)):
        yield _channels_last(quick, device, f"{form}, {SUBPIXEL}", x)
    yield _channels_last(network, device, form, x)


@torch.no_grad()
def _channels_last(network: nn.Module, device: torch.device, form: str, x: Tensor) -> Victim:
    """A victim that computes on channels-last images; where its `view` refuses those of ``x``, views may copy."""
    victim = Victim(network, device, "float32", form, channels_last=True)
    try:
        victim(x)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        if reshape_views(network):
            victim.form = f"{form}, {RESHAPED}"
    return victim


def _agrees(
    candidate: Victim, x: Tensor, y: Tensor, reference: Tensor, reference_logits: Tensor, findings: list[Finding]
) -> bool:
    """Whether a prepared form computes the reference's logits and slopes, to float32 rounding."""
    try:
        logits, slope = candidate(x).detach(), candidate.slope(x, y)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        findings.append(slower("not-prepared", f"the form '{candidate.form}' raises", error))
        return False
    close = torch.allclose(
        logits, reference_logits, rtol=1e-3, atol=1e-3 * float(reference_logits.abs().max().nan_to_num() + 1e-6)
    )
    moves = largest(reference) > 1e-30  # a confident example's gradient may be mostly rounding
    if close and (cosines(slope, reference)[moves] > 0.99).all():
        return True
    findings.append(slower("not-prepared", f"the form '{candidate.form}' computes something else than the model", None))
    return False


def _precision(candidate: Victim, wanted: str, x: Tensor, y: Tensor, findings: list[Finding]) -> str:
    """The precision asked for, or float32 when the model cannot run in it."""
    trial = replace(candidate, precision=wanted)
    try:
        gradient, _ = trial.gradient(x, y)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        findings.append(slower("not-mixed", f"the model raises in {wanted}; float32 is used", error))
        return "float32"
    if not gradient.isfinite().all():
        findings.append(slower("not-mixed", f"gradients in {wanted} are not finite; float32 is used", None))
        return "float32"
    return wanted
