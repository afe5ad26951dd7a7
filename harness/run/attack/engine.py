"""The engine: one attack at several ε against one victim, whatever the attack asks for.

Attacks run as a packed stream of rows (`epsbench.harness.run.attack.stream`). An attack with a loop of its own is
called batch by batch (`epsbench.harness.run.attack.batches`), and an ensemble part by part
(`epsbench.harness.run.attack.ensemble`). All are projected and judged here, so no attack can leave its ball or its box,
or decide for itself what counts as fooled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.base import Attack
from epsbench.attacks.norms import NORMS, Norm
from epsbench.harness.run.attack.asks import Asks
from epsbench.harness.run.attack.attack_run import AttackRun
from epsbench.harness.run.attack.batches import Batches
from epsbench.harness.run.attack.clean_gradients import CleanGradients
from epsbench.harness.run.attack.ensemble import Store, run_ensemble
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Ledger, Outcome
from epsbench.harness.run.attack.schedule import CURVES, Each, Every
from epsbench.harness.run.attack.smallest import NearestLedger, NearestTurn, Smallest
from epsbench.harness.run.attack.stream import Stream
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.turn import Turn
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.attack.watch import Unwatched, Watch

# A successful attack stops after about 20 % of its steps. Used to order work only, so a wrong value costs time.
STEPS_WHERE_IT_FOOLS = 0.2


@dataclass
class Engine:
    """Attacks on one victim."""

    victim: Victim
    """The model whose gradients are followed."""

    judge: Judge
    """The model whose verdicts count."""

    targets: Targets
    """The examples to attack."""

    batch: int
    """The number of slots: rows that are attacked at a time. Halved when memory runs out."""

    keep: int = 0
    """How many of the first targets keep their adversarial image."""

    poll: int = 0
    """Steps between two looks at the device; 0 chooses 1 on a CPU, where looking costs nothing, and 8 on CUDA."""

    white_box: bool = True
    """Whether victim and judge are one model. Otherwise each image is made to the end on the victim, and only the last
    image is judged."""

    watch: Watch = field(default_factory=Unwatched)
    """Takes the progress of the attack."""

    forward_batch: int = 0
    """The number of slots of attacks that take no gradient; 0: as many as of others."""

    whole: int = 0
    """How many targets the evaluation has, where these are some of them; 0: all."""

    clean: CleanGradients = field(init=False)
    """The gradients at the clean images, shared by all attacks that start there."""

    def __post_init__(self) -> None:
        self.whole = self.whole or len(self.targets)
        self.clean = CleanGradients(self.victim, self.targets, self.batch, self.whole)
        self.poll = self.poll or (1 if self.victim.device.type == "cpu" else 8)
        self._logits: Tensor | None = self.targets.logits if self.white_box else None

    def clean_logits(self) -> Tensor:
        """The logits (n, classes) at the clean images that an attack may know, computed once.

        They are the judge's, where that is the attacked model. An attack by another model knows that one alone.
        """
        if self._logits is not None:  # attacks ask at every step
            return self._logits
        batches = torch.arange(len(self.targets), device=self.targets.labels.device).split(self.batch)
        if self.white_box:
            parts = [self.judge.logits(self.targets.pixels(at), self.batch, self.targets.index[at]) for at in batches]
        else:
            self.victim.begin(0)
            asked = self.victim.forwards
            parts = [self.victim.scores(self.targets.pixels(at)) for at in batches]
            self.victim.forwards = asked
        self._logits = torch.cat(parts)
        return self._logits

    def on(self, positions: Tensor) -> Engine:
        """An engine for the targets at these positions (k,) alone, ascending."""
        keep = int((positions < self.keep).sum())
        targets = replace(self.targets, logits=self.clean_logits()).subset(positions)
        part = Engine(
            self.victim, self.judge, targets, self.batch, keep, self.poll, self.white_box, self.watch,
            self.forward_batch, self.whole,
        )  # fmt: skip
        part.know(targets.logits)
        return part

    def know(self, logits: Tensor | None) -> None:
        """Take over `clean_logits` (n, classes) of an engine that has computed them already."""
        self._logits = logits

    def run(
        self,
        attack: Attack,
        eps: Sequence[Fraction],
        *,
        seed: int,
        early_stop: bool = True,
        curve: str = "each",
        store: Store | None = None,
        part: str = "",
    ) -> Iterator[Outcome]:
        """An `Outcome` for each ε (pixel units, ascending), in order, each as soon as it is complete.

        ``curve`` is how the ε relate (`epsbench.harness.run.attack.schedule`): "each", "nested" or "bisect".
        ``store`` keeps the finished parts of an ensemble, so that an interrupted one goes on. ``part`` is the name
        that `watch` gets for the attack where it is a part of an ensemble.
        """
        if attack.query == "parts":
            yield from run_ensemble(self, attack, eps, seed=seed, early_stop=early_stop, store=store)
            return
        if self.victim.random and curve == "each" and len(eps) > 1:
            # What a random model draws depends on the rows beside each other: those of one ε alone, so that a cell
            # gives the same however many others are left to measure.
            for each in eps:
                yield from self.run(attack, [each], seed=seed, early_stop=early_stop, part=part)
            return
        attempts = attack.attempts(self.clean_logits().shape[1]) if len(self.targets) else 1
        self.victim.begin(seed)  # after the clean logits, which only the first attack computes
        stops_early = early_stop and self.white_box
        run = AttackRun(attack, tuple(eps), seed, attempts, stops_early, last_only=not self.white_box)
        # Sizes are measured by the harness's own norm of that name, whatever the attack makes of the one it was given.
        norm = NORMS.get(attack.norm.name, attack.norm)
        ledger = Ledger(self.judge, self.targets, norm, run.eps, self.keep)
        if not len(self.targets):
            yield from ledger.outcomes
            return
        if attack.goal == "smallest":
            yield from self._smallest(run, norm, part)
            return
        stops = run.early_stop and attack.query != "own" and attack.budget() > 1
        price = (STEPS_WHERE_IT_FOOLS if stops else 1.0) / run.attempts
        schedule = CURVES[curve]([float(e) for e in eps], len(self.targets), run.attempts, price)
        self.watch.begin(part, schedule.settled.size * run.attempts * _steps(run))
        if attack.query == "own":
            yield from self._batches(run, ledger, schedule)
        else:
            yield from self._stream(run, ledger, schedule)

    def _stream(self, run: AttackRun, ledger: Ledger, schedule: Each) -> Iterator[Outcome]:
        forward_only = run.attack.query == "logits" and self.forward_batch > 0
        slots = min(self.forward_batch if forward_only else self.batch, len(self.targets) * len(run.eps))
        asks = Asks(run.attack, self.victim, self.clean, self.clean_logits)
        turn = Turn(run, asks, self.targets, ledger.norm)
        stream = Stream(run, turn, ledger, schedule, slots=slots, poll=self.poll)
        stream.watch = self.watch
        for outcome in stream.run():
            self._fitted(stream, slots)
            if turn.from_clean:
                # Priced as if it had been attacked alone: the shared gradient in full, and its time.
                outcome.shared_backwards = int(outcome.attacked.sum())
                outcome.seconds += self.clean.seconds * outcome.shared_backwards / len(self.targets)
            outcome.returned.unkeyed = turn.draws.count
            yield outcome

    def _smallest(self, run: AttackRun, norm: Norm, part: str) -> Iterator[Outcome]:
        """One run without ε, which answers all of them."""
        if not self.white_box:
            raise ValueError("an attack that looks for the smallest distance needs the judged model, not a source")
        largest = norm.largest(self.targets.pixels(self.targets.index.new_zeros(1)).shape[1:])
        alone = replace(run, eps=(Fraction(largest),), early_stop=False)
        ledger = NearestLedger(self.judge, self.targets, norm, self.keep)
        self.watch.begin(part, len(self.targets) * run.attempts * _steps(run))
        unkeyed = self._nearest(alone, self.victim, ledger, np.arange(len(self.targets)))
        left = np.flatnonzero(np.isinf(ledger.distances))
        if len(left) and self.victim.precision != "float32" and not self.victim.random:
            # Half precision may see the class change where float32 does not, and the attack stay there: at the clean
            # image itself, or at changes too few.
            exact = self.victim.in_float32()
            unkeyed += self._nearest(alone, exact, ledger, left)
            self.victim.forwards, self.victim.backwards = exact.forwards, exact.backwards
        for eps in run.eps:
            outcome = ledger.at(eps)
            outcome.radii = len(run.eps)
            outcome.returned.unkeyed = unkeyed
            yield outcome

    def _nearest(self, run: AttackRun, victim: Victim, ledger: NearestLedger, only: np.ndarray) -> int:
        """Look for the nearest images of some targets, (k,) places; returns how many random draws were not keyed."""
        slots = min(self.batch, len(only) * run.attempts)
        asks = Asks(run.attack, victim, self.clean, self.clean_logits)
        turn = NearestTurn(run, asks, self.targets, ledger.norm)
        schedule = Every(len(self.targets), run.attempts, only)
        stream = Smallest(run, turn, ledger, schedule, slots=slots, poll=self.poll)
        stream.watch = self.watch
        list(stream.run())
        self._fitted(stream, slots)
        return turn.draws.count

    def _fitted(self, stream: Stream, slots: int) -> None:
        """Let later streams begin with what fitted, where memory ran out with so many ``slots``."""
        if stream.size < slots:
            self.batch = min(self.batch, stream.size)
            self.forward_batch = min(self.forward_batch, stream.size)

    def _batches(self, run: AttackRun, ledger: Ledger, schedule: Each) -> Iterator[Outcome]:
        batches = Batches(run, self.victim, self.judge, self.targets, ledger, schedule, self.batch)
        batches.watch = self.watch
        for outcome in batches.run():
            self.batch = batches.size
            yield outcome


def _steps(run: AttackRun) -> int:
    """The most queries of a row; an attack with a loop of its own counts as one, since its queries are not known."""
    return 1 if run.attack.query == "own" else max(1, run.attack.budget())
