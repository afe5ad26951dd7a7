"""Prepares a classifier for attacks along its gradients. The attacked classifier is the same or another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from epsbench.harness.plan.axes.randomness import Randomness
from epsbench.harness.plan.plan import Stream
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.remembered import digest_of
from epsbench.harness.run.context import Context
from epsbench.harness.run.crew import Crew
from epsbench.harness.run.machine.memory import is_out_of_memory, release
from epsbench.harness.run.machine.threads import chosen, shape_key
from epsbench.harness.run.speed.accelerate import LONG, Work, accelerate, timings
from epsbench.harness.run.speed.batch_size import UNTRIED, find_batch, find_forward_batch, untried
from epsbench.harness.run.speed.chosen import Chosen
from epsbench.harness.run.speed.floor import Floor, Passes, Rates, measure_rates, uncounted_rates
from epsbench.harness.run.speed.judging import lay_out
from epsbench.harness.run.speed.mixed import float32_where_faster
from epsbench.harness.run.speed.prepare import prepare, prepare_random
from epsbench.harness.run.speed.remembered import Tuned, recall, remember

# Seconds of an attack, if no image fell early, from which on processes share it out: each takes seconds to start.
WORTH_PROCESSES = 60.0
KEPT = 64  # adversarial images of each cell that the audits look at


@dataclass(frozen=True)
class Subject:
    """The classifier whose robustness is measured, as all its attackers need it."""

    judge: Judge
    """Gives the verdicts."""

    targets: Targets
    """The images to attack: those that it classifies correctly without an attack."""

    probe: tuple[Tensor, Tensor]
    """A few images (N, C, H, W) and labels (N,) to try a prepared network on."""

    precision: str
    """What attacked networks compute in: "bf16", "fp16" or "float32"."""

    context: Context
    """The run."""

    classes: int
    """The number of the data's classes."""

    randomness: Randomness | None = None
    """How often attacked networks are asked for an answer, where they are random."""

    identity: str = ""
    """A digest of weights, code and data, under which the fastest forms are remembered; empty: they are not."""


@dataclass(frozen=True)
class Attacker:
    """Attacks along the gradients of one classifier."""

    engine: Engine
    """Drives the attacks."""

    floor: Floor | None
    """The least time of gradients and verdicts; None where the work was too short to measure it."""

    weights: str = ""
    """SHA-256 of the weights that the gradients come from, where that model is not the one that judges."""

    crew: Crew | None = None
    """Who attacks along."""

    def floor_share(self, outcome: Outcome) -> float | None:
        """The least time that these gradients and verdicts can take on this device, over the time they took.

        None where it is not known: the work was too short, or the device too busy with other things, or a forward pass
        served several gradients.
        """
        if self.floor is None or not outcome.seconds or outcome.backwards > outcome.forwards:
            return None
        passes = Passes(outcome.gradients, outcome.judge_forwards, max(0, outcome.forwards - outcome.backwards))
        return self.floor.share(passes, outcome.seconds)


def splits(stream: Stream, classes: int) -> bool:
    """Whether an attack may be split by images: not if it has a loop of its own, whose noise may be the batch's."""
    attack = stream.attack
    parts = [part for _, part in attack.members(classes)] if attack.query == "parts" else [attack]
    return all(part.query != "own" for part in parts)


def make_attacker(
    network: nn.Module, subject: Subject, streams: Sequence[Stream], weights: str | None = None
) -> Attacker:
    """Prepare ``network`` for the attacks of ``streams``, in the form that is fastest for that much work.

    ``weights`` is the SHA-256 of the network's weights where the subject is another model; each image is then attacked
    to the last step.
    """
    with subject.context.progress.task("timing and compiling the fastest form of the model", None):
        return _prepared(network, subject, streams, weights)


def _prepared(network: nn.Module, subject: Subject, streams: Sequence[Stream], weights: str | None) -> Attacker:
    keep = max(KEPT, int((subject.targets.index < subject.context.keep_images).sum()))
    if subject.randomness:
        return _random(network, subject, subject.randomness, keep, weights)  # always alone
    victim = prepare(network, subject.context.device, subject.precision, *subject.probe)
    cells, images = sum(len(stream.cells) for stream in streams), len(subject.targets)
    work = _work(streams, images, subject.classes)
    rows = untried(victim, subject.targets)
    crew = _share_cores(victim, subject, work, rows, all(splits(stream, subject.classes) for stream in streams))
    # Where every image is wrong without an attack there is nothing to try the forms on.
    own = subject.identity and weights is None and crew is None and images
    key = _key(subject, work, cells * images) if own else ""
    known = recall(key, victim)
    if known is not None and known.apply(victim, subject.judge, subject.targets):
        batch, forward_batch, rates = known.chosen.batch, known.chosen.forward_batch, known.rates
    else:
        prepared = victim.form
        float32_where_faster(victim, subject.targets, rows, work.rows)
        batch = subject.context.batch_size or find_batch(victim, subject.targets, max(work.gradients, images))
        batch, forward_batch, rates = _tuned(victim, subject, max(1, min(batch, images)), work, cells * images)
        if key:
            chosen_forms = Chosen.of(victim, subject.judge, batch, forward_batch)
            remember(
                key,
                Tuned(prepared, chosen_forms, victim.form, victim.precision, tuple(victim.findings), rates),
            )
    engine = Engine(
        victim, subject.judge, subject.targets, batch, keep, white_box=weights is None, forward_batch=forward_batch
    )
    repeats = timings(work.rows, batch)
    measure = partial(uncounted_rates, victim, subject.judge, subject.targets, batch, repeats, forward_batch)
    return Attacker(engine, Floor(rates, measure) if rates else None, weights or "", crew)


def _key(subject: Subject, work: Work, verdicts: int) -> str:
    """What the fastest forms depend on."""
    context = subject.context
    settings = context.device, context.batch_size, context.compile, torch.get_num_threads(), subject.precision
    return digest_of(subject.identity, len(subject.targets), work, verdicts, *settings)


def _random(network: nn.Module, subject: Subject, randomness: Randomness, keep: int, weights: str | None) -> Attacker:
    """Its batches have a fixed size: by timing, they would have another one each time, and a model draws by batches."""
    context = subject.context
    victim = prepare_random(network, context.device, subject.precision, randomness.samples, *subject.probe)
    batch = max(1, min(context.batch_size or UNTRIED[context.device.type], len(subject.targets)))
    engine = Engine(victim, subject.judge, subject.targets, batch, keep=keep, white_box=weights is None)
    return Attacker(engine, None, weights or "")


def _share_cores(victim: Victim, subject: Subject, work: Work, rows: int, shared: bool) -> Crew | None:
    """Compute with as many threads as the victim's gradient is fastest with, where the work is long enough to try.

    Where several processes share the CPU, each has its part of the threads. Returns those that attack along, if the
    work can be ``shared``. ``rows`` are tried at a time, unless the run says how many.
    """
    most = subject.context.most_threads
    if subject.context.devices > 1 and victim.device.type == "cpu":
        most = subject.context.threads_of_an_attack
        torch.set_num_threads(most)
    batch = min(subject.context.batch_size or rows, len(subject.targets))
    if not victim.differentiable or not batch or work.rows < LONG * batch or victim.device.type != "cpu" or most <= 1:
        return subject.context.crew
    x, y = subject.targets.batch(batch)
    key = f"gradient {shape_key(victim.network, tuple(x.shape), victim.precision)}"
    choice = chosen(lambda: victim.gradient(x, y), most, key)
    torch.set_num_threads(choice.threads)
    long = work.rows / batch * choice.seconds > WORTH_PROCESSES
    if subject.context.reserve is None or choice.processes == 1 or not (long and shared):
        return subject.context.crew
    torch.set_num_threads(max(1, most // choice.processes))
    return subject.context.reserve(choice.processes)


def _work(streams: Sequence[Stream], images: int, classes: int) -> Work:
    """What the streams ask of the victim at most. A Jacobian is not asked loss by loss."""
    attacks = [(stream.attack, len(stream.cells)) for stream in streams]
    followed = [attack for attack, _ in attacks if attack.query != "jacobian"]
    return Work(
        images * sum(cells * attack.gradients(classes) for attack, cells in attacks),
        images * sum(cells * attack.forwards(classes) for attack, cells in attacks),
        tuple(dict.fromkeys(loss for attack in followed for loss in attack.losses(classes))),
    )


def _tuned(victim: Victim, subject: Subject, batch: int, work: Work, verdicts: int) -> tuple[int, int, Rates | None]:
    """Make the victim faster for that much work, and the judge for that many verdicts.

    Returns the batch size, halved while memory runs out, that of attacks without gradients, and the rates where the
    work is long enough to measure them.
    """
    judge, targets, fixed = subject.judge, subject.targets, subject.context.batch_size
    while True:
        exhausted = False
        try:
            gradient = accelerate(victim, targets, batch, work, subject.context.compile)
            forward_batch = batch if fixed else find_forward_batch(victim, targets, batch, work.forwards)
            if work.rows < LONG * batch or not victim.differentiable:
                return batch, forward_batch, None
            lay_out(judge, targets, batch, verdicts)
            repeats = timings(work.rows, batch)
            rates = measure_rates(
                victim, judge, targets, batch, repeats, forward_batch, gradient=gradient, forwards=work.forwards > 0
            )
            return batch, forward_batch, rates
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            exhausted = True
        if exhausted:
            release()
            batch //= 2
