"""What pays on this machine, found by trying: the batch size, compilation, CUDA graphs. And the floor they leave.

None of it changes a verdict; all of it is recorded.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.run.compiling import compiled
from harness.run.graphs import graphed
from harness.run.ledger import Targets
from harness.run.memory import is_out_of_memory, release
from harness.run.victim import Judge, Victim, slower

Calls = Callable[[], object]

SMALLEST = 32
LARGEST = {"cpu": 512, "cuda": 4096}
UNTRIED = {"cpu": 128, "cuda": 1024}
LONG = 200  # batches of gradients, from which a few more to measure with are little beside the work
TRIAL_SHARE = 0.02  # of the predicted work may go into finding the batch size
# What compilation saved of the eager time, and what it cost, where it was tried: ResNet-18 on two cores.
# The GPU's figures are a guess until one is measured; a wrong guess costs seconds, never a number.
EXPECTED_GAIN = {"cpu": 0.08, "cuda": 0.35}
EXPECTED_COMPILE_SECONDS = {"cpu": 45.0, "cuda": 60.0}


@dataclass(frozen=True)
class Rates:
    """Seconds a row: a bare gradient at the victim's precision and batch, and a float32 forward of the judge."""

    gradient: float
    verdict: float

    def floor(self, gradients: int, verdicts: int) -> float:
        """The least seconds an attack of so many gradients and verdicts can take on this device."""
        return gradients * self.gradient + verdicts * self.verdict


def seconds(call: Calls, device: torch.device, repeats: int = 3) -> float:
    """Median seconds of a call, the device synchronised."""
    taken = []
    for _ in range(repeats):
        _synchronise(device)
        started = time.perf_counter()
        call()
        _synchronise(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def find_batch(victim: Victim, targets: Targets, rows: int) -> int:
    """The batch size with the most gradients a second, doubling until it gains nothing, or memory runs out.

    ``rows`` is the work ahead in gradients; when a trial would cost more than 2 % of it, an untried size is used.
    """
    kind = victim.device.type
    most, budget = min(LARGEST[kind], max(rows, 1)), TRIAL_SHARE * rows
    if budget < 4 * SMALLEST or not victim.differentiable:
        return min(UNTRIED[kind], most)
    best, best_rate, batch, spent = min(UNTRIED[kind], most), 0.0, SMALLEST, 0
    while batch <= most and spent + 2 * batch <= budget:
        x, y = _batch(targets, batch)
        try:
            victim.gradient(x, y)  # the first call at a new shape chooses kernels
            rate = batch / seconds(lambda x=x, y=y: victim.gradient(x, y), victim.device, 1)  # type: ignore[misc]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            rate = 0.0
        if rate == 0.0:
            release()
            return min(best, batch // 2)
        spent += 2 * batch
        if rate > 1.03 * best_rate:
            best, best_rate = batch, rate
        elif batch >= 4 * best:
            break
        batch *= 2
    return best


def accelerate(victim: Victim, targets: Targets, batch: int, rows: int, wanted: str) -> None:
    """Compile the victim (``wanted`` = "on", or "auto" when it should pay), keep that if it is faster and the same.

    On CUDA the step is then captured as a graph. Sets the victim's ``fixed`` network for exactly ``batch`` rows,
    its ``form`` and ``compile_seconds``; what was refused is a finding.
    """
    if len(targets) == 0 or wanted == "off" or not victim.differentiable:
        return
    if wanted == "auto" and rows < LONG * batch:
        return
    x, y = _batch(targets, batch)
    eager = seconds(lambda: victim.gradient(x, y), victim.device)
    kind = victim.device.type
    ahead = rows / batch * eager * EXPECTED_GAIN[kind]
    if wanted == "on" or ahead > EXPECTED_COMPILE_SECONDS[kind]:
        _compile(victim, x, y)
    if kind == "cuda":
        _capture(victim, x, y)


def measure_rates(victim: Victim, judge: Judge, targets: Targets, batch: int) -> Rates:
    """The floor's ingredients at this batch, from a few bare calls."""
    x, y = _batch(targets, batch)
    gradient = seconds(lambda: victim.gradient(x, y), victim.device)
    verdict = seconds(lambda: judge.logits(x, batch), victim.device)
    return Rates(gradient / len(x), verdict / len(x))


def _compile(victim: Victim, x: Tensor, y: Tensor) -> None:
    started = time.perf_counter()
    expected = victim.slope(x, y)
    plain = victim.fixed
    try:
        victim.fixed = (len(x), compiled(victim.network))
        slope = victim.slope(x, y)
    # Dynamo and Inductor raise their own RuntimeErrors; a machine without a C++ compiler an OSError.
    except (RuntimeError, OSError) as error:
        victim.fixed = plain
        victim.findings.append(slower("not-compiled", "torch.compile refuses this model", error))
        return
    _synchronise(victim.device)
    victim.compile_seconds = time.perf_counter() - started
    compiled_network = victim.fixed
    pairs = []
    for _ in range(3):
        victim.fixed = compiled_network
        with_it = seconds(lambda: victim.gradient(x, y), victim.device, 1)
        victim.fixed = plain
        pairs.append(with_it / seconds(lambda: victim.gradient(x, y), victim.device, 1))
    if not _same(slope, expected):
        victim.findings.append(slower("not-compiled", "the compiled model computes something else", None))
    elif statistics.median(pairs) < 0.98:
        victim.fixed = compiled_network
        victim.form += ", compiled"


def _capture(victim: Victim, x: Tensor, y: Tensor) -> None:
    expected, _ = victim.gradient(x, y)
    try:
        step = graphed(victim.bare_gradient, x, y)
        gradient, _ = step(x, y)
    except RuntimeError as error:
        victim.findings.append(slower("not-graphed", "the step cannot be captured as a CUDA graph", error))
        return
    if not _same(gradient, expected):
        victim.findings.append(slower("not-graphed", "the captured step computes something else", None))
        return
    victim.graph = (len(x), step)
    victim.form += ", CUDA graph"


def _same(found: Tensor, expected: Tensor) -> bool:
    """Whether two gradients are one up to the rounding of bf16, which reordered sums may move by some per cent."""
    return float((found - expected).norm()) <= 0.1 * float(expected.norm())


def _batch(targets: Targets, batch: int) -> tuple[Tensor, Tensor]:
    """``batch`` rows of real images, repeated where there are fewer."""
    at = torch.arange(batch, device=targets.labels.device) % len(targets)
    return targets.pixels(at), targets.labels[at]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
