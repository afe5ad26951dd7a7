"""Faster ways to the victim's gradient: a program, compilation, a CUDA graph. Each is tried and compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from epsbench.attacks.losses import CROSS_ENTROPY, Loss, wrong_logits
from epsbench.harness.findings import slower
from epsbench.harness.run.attack.graphs import Ladder, Query, steps_down
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import is_out_of_memory
from epsbench.harness.run.machine.timing import both_seconds, seconds, synchronise
from epsbench.harness.run.speed.compiling import compiled
from epsbench.harness.run.speed.program import UNTRACEABLE

Step = Callable[..., tuple[Tensor, Tensor]]  # images and the loss's inputs to gradients and logits

LONG = 200  # batches of gradients; before so many, a few more for measuring are a small part of the work
MUCH_LONGER = 1000  # before so many, each is measured three times

# What a program saves of the eager time: 3 to 6 % of a ResNet-18's gradient, and 30 to 50 % where a batch takes less
# than SMALL_SECONDS. What it costs: seconds that grow with the number of modules (0.3 s for smallcnn, 0.6 s for a
# ResNet-18, 10 s for a DenseNet-121), and some batches to compare it with the network. Two AMD EPYC (Zen 5) cores,
# torch 2.14, one run of each network.
SMALL_SECONDS, PROGRAM_GAIN, SMALL_PROGRAM_GAIN = 0.02, 0.04, 0.3

PROGRAM_SECONDS, PROGRAM_MODULE_SECONDS, PROGRAM_BATCHES = 0.5, 0.02, 12

# The same for compilation: ResNet-18 on the same two cores, where it saves nothing beyond a program. The figures for a
# GPU are a guess until one is measured. A wrong guess costs seconds and changes no number.
EXPECTED_GAIN = {"cpu": 0.08, "cuda": 0.35}

EXPECTED_COMPILE_SECONDS = {"cpu": 45.0, "cuda": 60.0}

# How far a program's gradient may be from its network's, as a share of its length, beyond 1.25 times the distance that
# the network's own precision has from float32. The median of 33 bf16 rows varies by 0.02 (same cores, three networks).
SAME = {"float32": 0.005, "bf16": 0.04, "fp16": 0.01}


@dataclass(frozen=True)
class Work:
    """What lies ahead of a victim."""

    gradients: int
    """Rows whose gradient will be asked for."""

    forwards: int = 0
    """Rows whose logits alone will be asked for."""

    losses: tuple[Loss, ...] = (CROSS_ENTROPY,)
    """The losses of the gradients."""

    @property
    def rows(self) -> int:
        """All of it in gradients, each of which takes as long as three forward passes."""
        return self.gradients + self.forwards // 3


def accelerate(victim: Victim, targets: Targets, batch: int, work: Work, wanted: str) -> float | None:
    """Find faster ways to the victim's answers for the ``work`` ahead; keep what is faster and computes the same.

    On a CPU that is a program, on CUDA compilation and graphs. ``wanted`` is "off" (none of it), "auto"
    (before a long run, what should pay for itself) or "on" (program and compilation at any price). Sets the victim's
    ``programs``, or its ``fixed`` network for exactly ``batch`` rows, its ``form`` and ``compile_seconds``. What is
    refused gives a finding.

    Returns the seconds, by the clock, of a gradient of ``batch`` rows where the victim stays as it is; None where it
    does not, or was not timed.
    """
    if len(targets) == 0 or wanted == "off" or not victim.differentiable:
        return None
    if wanted == "auto" and work.rows < LONG * batch:
        return None
    x, y = targets.batch(batch)
    eager, by_clock = both_seconds(lambda: victim.gradient(x, y), victim.device, timings(work.rows, batch))
    kind, ahead = victim.device.type, work.rows / batch * eager
    served = work.losses or work.forwards  # a Jacobian has no program
    if kind == "cpu" and served and (wanted == "on" or _program_pays(victim, eager, ahead)):
        _trace(victim, targets, x, y, work)
    worth = victim.program is None and ahead * EXPECTED_GAIN[kind] > EXPECTED_COMPILE_SECONDS[kind]
    if wanted == "on" or worth:
        _compile(victim, x, y)
    if kind == "cuda":
        _capture(victim, x, y, work)
    return None if victim.programs or victim.fixed is not None or victim.graphs else by_clock


def timings(rows: int, batch: int) -> int:
    """How often a call is timed before so many rows of work: once where three times would be a large part of it."""
    return 3 if rows >= MUCH_LONGER * batch else 1


def _program_pays(victim: Victim, eager: float, ahead: float) -> bool:
    """Whether a program should save more than it costs in ``ahead`` seconds of gradients, ``eager`` seconds each."""
    modules = sum(1 for _ in victim.network.modules()) if isinstance(victim.network, nn.Module) else 1
    gain = SMALL_PROGRAM_GAIN if eager < SMALL_SECONDS else PROGRAM_GAIN
    return ahead * gain > PROGRAM_SECONDS + PROGRAM_MODULE_SECONDS * modules + PROGRAM_BATCHES * eager


def _trace(victim: Victim, targets: Targets, x: Tensor, y: Tensor, work: Work) -> None:
    """Give the victim a program for every loss, and for logits alone, that is faster and computes the same."""
    started = time.perf_counter()
    # Imported here: it brings torch's compiler, which takes a second to import, and many runs trace nothing.
    from epsbench.harness.run.speed.program.program import ForwardProgram, Program

    few_x, few_y = targets.batch(5)
    few_x = victim.laid_out(few_x)
    try:
        for loss in work.losses:
            program = Program(victim.bare_logits, few_x, *trial_inputs(victim, loss, few_x, few_y), loss=loss)
            same = all(computes_the_same(victim, program, loss, x[:n]) for n in (64, 33) if len(x) > 1)
            if not same:
                victim.findings.append(slower("not-traced", "the program of this model computes something else", None))
                return
            given = (x, *trial_inputs(victim, loss, x, y))
            if _faster(partial(_laid_out, program, victim, given), partial(victim.query, x, loss, *given[1:]), victim):
                victim.programs[loss] = program
        if work.forwards:
            forward = ForwardProgram(victim.exact_logits, few_x)
            if _pays(forward, victim, x):
                victim.forward_program = forward
            _try_own_layouts(victim, few_x, x)
            if victim.precision != "float32":
                look = ForwardProgram(victim.bare_logits, few_x)
                victim.look_program = look if gives_the_logits(victim, look, x, victim.precision) else None
    except UNTRACEABLE as error:
        if is_out_of_memory(error):
            raise
        victim.findings.append(slower("not-traced", "no program can be made of this model", error))
        return
    finally:
        victim.compile_seconds += time.perf_counter() - started
    if victim.programs or victim.forward_program:
        victim.form += ", program"


def _try_own_layouts(victim: Victim, few_x: Tensor, x: Tensor) -> None:
    """Let the victim's logits be computed in oneDNN's own layouts, where that is faster than what it has."""
    from epsbench.harness.run.speed.program.program import ForwardProgram

    if not torch.backends.mkldnn.is_available():
        return
    try:
        forward = ForwardProgram(victim.exact_logits, few_x, own_layouts=True)
        pays = _pays(forward, victim, x)
    except UNTRACEABLE as error:  # the library refuses a layer in these layouts: the victim keeps what it has
        if is_out_of_memory(error):
            raise
        return
    if pays:
        victim.forward_program = forward


def _pays(forward: Callable[[Tensor], Tensor], victim: Victim, x: Tensor) -> bool:
    """Whether a forward program gives the victim's logits at ``x``, and faster than the victim does now."""
    return gives_the_logits(victim, forward, x) and _faster(
        lambda: forward(victim.laid_out(x)), lambda: victim.scores(x), victim
    )


def _laid_out(program: Step, victim: Victim, given: tuple[Tensor, ...]) -> object:
    return program(victim.laid_out(given[0]), *given[1:])


def _faster(new: Callable[[], object], old: Callable[[], object], victim: Victim) -> bool:
    """Whether one of two ways to the same answer is faster by at least 2 %; measured alternately.

    The least times of both count: what disturbs a call only adds to it. Short calls are repeated more often.
    """
    pairs = [(seconds(new, victim.device, 1), seconds(old, victim.device, 1))]
    rounds = 3 if sum(pairs[0]) > SMALL_SECONDS else 9
    pairs += [(seconds(new, victim.device, 1), seconds(old, victim.device, 1)) for _ in range(rounds - 1)]
    ours, others = (min(times) for times in zip(*pairs, strict=True))
    return ours < 0.98 * others


def trial_inputs(victim: Victim, loss: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Inputs of a loss for a trial on images ``x`` (N, C, H, W), labels ``y`` (N,); the target is the nearest class."""
    with torch.no_grad():
        logits = victim.bare_logits(x)
    known = {"y": y, "target": wrong_logits(logits, y).argmax(1), "logits": logits, "normals": torch.randn_like(logits)}
    return tuple(known[name] for name in loss.inputs)


def gives_the_logits(
    victim: Victim, forward: Callable[[Tensor], Tensor], x: Tensor, precision: str = "float32"
) -> bool:
    """Whether a forward program gives the victim's logits in float32, or in its own precision, within rounding."""
    with torch.no_grad():
        expected = victim.exact_logits(x) if precision == "float32" else victim.bare_logits(x)
        return apart(forward(victim.laid_out(x)), expected) <= SAME[precision]


def computes_the_same(victim: Victim, program: Step, loss: Loss, x: Tensor) -> bool:
    """Whether a program gives the victim's logits and gradients, within the rounding of the victim's precision.

    Compared for the least likely labels: the gradient of a confident example is mostly rounding.
    """
    exact = Victim(victim.network, victim.device, "float32", "", victim.channels_last)
    inputs = trial_inputs(victim, loss, x, victim.bare_logits(x).argmin(1))
    expected, bare = exact.bare_query(x, loss, *inputs), victim.bare_query(x, loss, *inputs)
    ours = program(victim.laid_out(x), *inputs)
    # Not a negated comparison: NaN is not the same.
    return all(
        apart(mine, right) <= 1.25 * apart(its, right) + SAME[victim.precision]
        for mine, its, right in zip(ours, bare, expected, strict=True)
    )


def apart(rows: Tensor, expected: Tensor) -> float:
    """How far a row is from the expected one, as a share of its length: the median over rows.

    Not the mean: where a low precision flips a ReLU, the gradients of a few rows point anywhere.
    """
    distance = (rows - expected).flatten(1).norm(dim=1)
    return float((distance / expected.flatten(1).norm(dim=1).clamp_min(1e-30)).median())


def _compile(victim: Victim, x: Tensor, y: Tensor) -> None:
    started = time.perf_counter()
    expected = victim.slope(x, y)
    others = {loss: program for loss, program in victim.programs.items() if loss != CROSS_ENTROPY}
    try:
        trial = replace(victim, fixed=(len(x), compiled(victim.network)), programs=others)
        slope = trial.slope(x, y)
        trial.gradient(x, y)
    # Dynamo and Inductor raise their own errors, a machine without a C++ compiler an OSError, and the model anything.
    except Exception as error:  # noqa: BLE001
        victim.findings.append(slower("not-compiled", "torch.compile refuses this model", error))
        return
    synchronise(victim.device)
    victim.compile_seconds += time.perf_counter() - started
    if not _same(slope, expected):
        victim.findings.append(slower("not-compiled", "the compiled model computes something else", None))
    elif _faster(partial(trial.gradient, x, y), partial(victim.gradient, x, y), victim):
        victim.fixed, victim.programs = trial.fixed, others
        victim.form = victim.form.removesuffix(", program") + ", compiled"


def _capture(victim: Victim, x: Tensor, y: Tensor, work: Work) -> None:
    """Give the victim CUDA graphs of what the ``work`` asks, for the rows of ``x`` and fewer, where they are faster."""
    x = victim.laid_out(x)
    for loss in (*work.losses, *([None] if work.forwards else [])):
        query, given = bare(victim, loss), graph_inputs(victim, loss, x, y)
        try:
            graphs = Ladder(query, given, steps_down(len(x)))
            same = all(map(_same, graphs(*given), query(*given)))
            graphs.keep(graphs.faster(victim.device) if same else ())
        except Exception as error:  # noqa: BLE001 - as above
            victim.findings.append(slower("not-graphed", "a query cannot be captured as a CUDA graph", error))
            break
        if not same:
            victim.findings.append(slower("not-graphed", "the captured query computes something else", None))
            break
        if graphs.sizes:
            victim.graphs[loss] = graphs
    if victim.graphs:
        victim.form += ", CUDA graph"


def graph_inputs(victim: Victim, loss: Loss | None, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """What `bare` queries of a loss take, at images ``x`` (N, C, H, W) with labels ``y`` (N,)."""
    return (x,) if loss is None else (x, *trial_inputs(victim, loss, x, y))


def bare(victim: Victim, loss: Loss | None) -> Query:
    """The victim's answer to a query of a loss, or without one its logits, without graphs and without being counted."""
    if loss is not None:
        return lambda x, *inputs: victim.bare_query(x, loss, *inputs)

    def logits(x: Tensor) -> tuple[Tensor]:
        with torch.no_grad():
            return (victim.exact_logits(x),)

    return logits


def _same(gradient: Tensor, expected: Tensor) -> bool:
    """Whether two gradients, or logits, agree up to bf16 rounding; reordered sums may move them by some per cent."""
    return float((gradient - expected).norm()) <= 0.1 * float(expected.norm())
