"""The classifier under attack, twice: the Victim gives gradients fast, the Judge decides in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.fx.experimental import optimization
from torch.nn import functional as F

from harness.records import Finding
from harness.run.audits.codes import found
from harness.run.convolutions import SUBPIXEL, subpixel
from harness.run.memory import in_chunks, is_out_of_memory
from harness.run.program import UNTRACEABLE
from harness.run.step import autocast, input_gradient

# How far a precision's logits may be off, as a share of the largest: four units in the last place.
DOUBT = {"bf16": 2.0**-6, "fp16": 2.0**-9, "float32": 0.0}


def frozen_copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy in evaluation mode whose parameters ask for no gradient; the caller's model is not touched."""
    return copy.deepcopy(model).to(device).eval().requires_grad_(False)


class Judge:
    """The untouched model in float32 and evaluation mode. Only its word makes an example correct or fooled."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.network = frozen_copy(model, device).float()
        self.device = device
        self.forwards = 0
        # Found by `harness.run.tuning`: how weights and images lie in memory, and how many images to judge at a time.
        self.layout = torch.contiguous_format
        self.batch = 0

    def lay(self, layout: torch.memory_format, batch: int) -> None:
        """From now on judge images in this layout in memory, ``batch`` at a time or as many as the caller says."""
        self.layout, self.batch = layout, batch
        self.network.to(memory_format=layout)

    @torch.no_grad()
    def logits(self, x: Tensor, batch: int) -> Tensor:
        """Float32 logits (N, classes) of pixels (N, C, H, W), in batches of ``batch`` or its own, if that is larger."""
        self.forwards += len(x)
        x = x.contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, enabled=False):
            return in_chunks(lambda rows: self.network(x[rows]).float(), len(x), max(batch, self.batch))


@dataclass
class Victim:
    """A trained classifier prepared for attack. Calls it are counted in rows, forwards and backwards apart.

    ``form`` says what was done to it; ``findings`` say which preparation it refused.
    """

    network: Callable[[Tensor], Tensor]
    device: torch.device
    precision: str
    form: str
    channels_last: bool = False
    findings: list[Finding] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0
    compile_seconds: float = 0.0
    differentiable: bool = True
    # Found by `harness.run.tuning`: the gradient as a program, for two rows or more; networks and steps for one batch
    # size alone.
    program: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    fixed: tuple[int, Callable[[Tensor], Tensor]] | None = None
    graph: tuple[int, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, classes), float32 in type, of the victim's precision in value."""
        self.forwards += len(x)
        return self.bare_logits(x)

    def gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the summed cross-entropy at ``x`` (N, C, H, W), and the logits; both float32."""
        self.forwards += len(x)
        self.backwards += len(x)
        if self.graph and self.graph[0] == len(x):
            return self.graph[1](x, y)
        if self.program and len(x) > 1:
            return self.program(self.laid_out(x), y)
        return self.bare_gradient(x, y)

    def bare_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """`gradient` as the network computes it, without a program or a graph, and without being counted."""
        return input_gradient(self.bare_logits, x, y)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of the true class's logit over the mean logit, (N, C, H, W).

        It tells whether two forms compute the same. The loss's own gradient does not: on a confident example
        it is what rounding left of 1 - 1, and points anywhere.
        """
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.bare_logits(x)
            rise = (logits.gather(1, y[:, None]).squeeze(1) - logits.mean(1)).sum()
            (slope,) = torch.autograd.grad(rise, x)
        return slope.float()

    def laid_out(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in the layout in memory that the victim computes in: every step is spared a copy."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """By how much each row (N,) is right beyond doubt; the judge should see those below 0.

        The doubt is what the precision's logits may be off. Without it bf16 walks past images that fool in
        float32, and looks weaker than it is.
        """
        rivals = logits.scatter(1, y[:, None], float("-inf"))
        margin = logits.gather(1, y[:, None]).squeeze(1) - rivals.amax(1)
        return margin - DOUBT[self.precision] * logits.abs().amax(1)

    def bare_logits(self, x: Tensor) -> Tensor:
        """The logits (N, classes) as the network computes them, without being counted."""
        x = self.laid_out(x)
        with autocast(self.device, self.precision):
            network = self.fixed[1] if self.fixed and self.fixed[0] == len(x) else self.network
            return network(x).float()


def prepare(model: nn.Module, device: torch.device, precision: str, x: Tensor, y: Tensor) -> Victim:
    """The fastest form of the model that still computes the same function on the probe ``x`` (N, C, H, W), ``y`` (N,).

    Folded batch norm and channels-last come first; a model that refuses either takes the plainer form,
    and a finding says so. So does one that cannot be differentiated: attacks along its gradients will raise,
    the others run.
    """
    bare = Victim(frozen_copy(model, device), device, "float32", "plain")
    findings: list[Finding] = []
    try:
        reference, reference_logits = bare.slope(x, y), bare(x)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        bare.differentiable = False
        bare.findings.append(found("not-differentiable", f"its gradient raises {type(error).__name__}: {error}"))
        return bare
    for candidate in _forms(model, device, findings):
        if _agrees(candidate, x, y, reference, reference_logits, findings):
            candidate.precision = _precision(candidate, precision, x, y, findings)
            candidate.findings = findings
            candidate.forwards = candidate.backwards = 0
            return candidate
    return Victim(bare.network, device, _precision(bare, precision, x, y, findings), "plain", findings=findings)


def _forms(model: nn.Module, device: torch.device, findings: list[Finding]) -> Iterator[Victim]:
    plain = frozen_copy(model, device)
    has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    if has_batch_norm:
        try:
            folded = optimization.fuse(plain)
        except UNTRACEABLE as error:
            findings.append(slower("not-folded", "batch norm is not folded: torch.fx cannot trace this model", error))
        else:
            folded = folded.requires_grad_(False).to(memory_format=torch.channels_last)
            yield from _with_and_without(folded, device, "folded, channels-last")
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    yield from _with_and_without(last, device, "channels-last")


def _with_and_without(network: nn.Module, device: torch.device, form: str) -> Iterator[Victim]:
    """The form on a CPU with sub-pixel gradients, where a layer gains by them, and the form itself."""
    if device.type == "cpu" and subpixel(quick := copy.deepcopy(network)):
        yield Victim(quick, device, "float32", f"{form}, {SUBPIXEL}", channels_last=True)
    yield Victim(network, device, "float32", form, channels_last=True)


def _agrees(
    candidate: Victim, x: Tensor, y: Tensor, reference: Tensor, reference_logits: Tensor, findings: list[Finding]
) -> bool:
    """Whether a prepared form computes the reference's logits and slopes, to float32 rounding."""
    try:
        logits, slope = candidate(x), candidate.slope(x, y)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        findings.append(slower("not-prepared", f"the form '{candidate.form}' raises", error))
        return False
    close = torch.allclose(
        logits, reference_logits, rtol=1e-3, atol=1e-3 * float(reference_logits.abs().max().nan_to_num() + 1e-6)
    )
    if close and (cosines(slope, reference) > 0.99).all():
        return True
    findings.append(slower("not-prepared", f"the form '{candidate.form}' computes something else than the model", None))
    return False


def cosines(gradient: Tensor, expected: Tensor) -> Tensor:
    """Cosine of the angle between two gradients, row by row, for the rows where ``expected`` is not lost to rounding.

    A confident example's gradient may be 1e-20 long, and its direction is as good as any other's: each row is
    divided by its largest entry, for the squares would underflow.
    """
    largest = expected.flatten(1).abs().amax(1)
    moves = largest > 1e-30
    a, b = (t.flatten(1)[moves] / largest[moves, None] for t in (gradient, expected))
    return F.cosine_similarity(a, b)


def _precision(candidate: Victim, wanted: str, x: Tensor, y: Tensor, findings: list[Finding]) -> str:
    """The precision asked for, or float32 when the model cannot run in it."""
    trial = Victim(candidate.network, candidate.device, wanted, candidate.form, candidate.channels_last)
    try:
        gradient, _ = trial.gradient(x, y)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        findings.append(slower("not-mixed", f"the model raises in {wanted}; float32 is used", error))
        return "float32"
    if not gradient.isfinite().all():
        findings.append(slower("not-mixed", f"gradients in {wanted} are not finite; float32 is used", None))
        return "float32"
    return wanted


def slower(code: str, message: str, error: BaseException | None) -> Finding:
    """A warning that a faster form was refused, and why."""
    reason = f" ({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''})" if error else ""
    return Finding(code=code, severity="warning", message=f"{message}{reason}; numbers are unaffected, speed is")
