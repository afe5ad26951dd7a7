"""One attack by several devices at once: each takes a range of the targets, then the next, until none is left.

This process works as well. What it is asked to attack meanwhile is given out by one thread a helper.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from epsbench.harness.findings import slower
from epsbench.harness.plan.plan import Stream
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.merging import Shard, merged, zero_gradients
from epsbench.harness.run.context import Context
from epsbench.harness.run.crew import Helper, HelperLostError
from epsbench.harness.run.progress import Task as Progress
from epsbench.harness.run.robustness.attacker import Attacker
from epsbench.harness.run.robustness.kept_shards import KeptShards
from epsbench.harness.run.robustness.shares import LOST, Running, Shares
from epsbench.harness.run.robustness.workbench import Setup, Task, attack_with

HERE = "this process"
_LOOK = 0.2  # seconds between two looks at who is late


class _NotNeededError(Exception):
    """Somebody else has finished the range, or the evaluation is over."""


@dataclass(frozen=True)
class Sharded:
    """An evaluation that was attacked in shards."""

    outcomes: list[Outcome]
    """One an ε, on all targets."""

    shards: list[Shard]
    """What each device did, in the order of the targets."""


def attack_in_shards(attacker: Attacker, stream: Stream, kept: KeptShards, context: Context, setup: Setup) -> Sharded:
    """Attack all targets of an attacker with its crew, what ``kept`` has left out. Raises what the attack raises."""
    engine, crew = attacker.engine, attacker.crew
    helpers = list(crew.helpers) if crew is not None else []
    shares = Shares(len(engine.targets), 1 + len(helpers), max(1, engine.batch), done=kept.load())
    title = f"{stream.cells[0].attack.label()}: shards on {shares.devices} device{'s' if shares.devices > 1 else ''}"
    with context.progress.task(title, shares.total, "images") as shown:
        wanted = crew is None or crew.wanted
        work = _Evaluation(attacker, stream, kept, shares, setup, shown, context.device_name(), wanted)
        with work.helped_by(helpers):
            work.run()
    shards = sorted(shares.done, key=lambda shard: shard.first)
    zero = zero_gradients(shards)
    if zero is not None:
        engine.clean.zero = zero
    return Sharded(merged(shards), shards)


class _Evaluation:
    def __init__(
        self,
        attacker: Attacker,
        stream: Stream,
        kept: KeptShards,
        shares: Shares,
        setup: Setup,
        shown: Progress,
        device: str,
        wanted: bool,
    ) -> None:
        self.wanted = wanted
        self.engine, self.stream, self.kept, self.shares = attacker.engine, stream, kept, shares
        self.setup, self.shown, self.device = setup, shown, device
        self.changed = threading.Condition()
        self.over = False
        self.error: BaseException | None = None
        logits = self.engine.clean_logits()
        self.logits, self.index = logits.cpu().numpy(), self.engine.targets.index.cpu().numpy()
        self._show()

    def run(self) -> None:
        """Take ranges in this process until every target has its outcome."""
        while (running := self._next(HERE)) is not None:
            positions = torch.arange(running.first, running.last, device=self.engine.targets.labels.device)
            engine = self.engine.on(positions)
            engine.watch = _Watch(self, HERE, running, len(self.stream.attack.members(self.logits.shape[1])))
            try:
                shard = attack_with(engine, self.stream, running.first, self.device)
            except _NotNeededError:
                with self.changed:
                    self.shares.running.pop(HERE, None)
                continue
            self._done(HERE, shard)
        if self.error is not None:
            raise self.error

    @contextmanager
    def helped_by(self, helpers: list[Helper]) -> Iterator[None]:
        """Inside, every helper takes ranges too. Afterwards those that still work on one give it up."""
        threads = [
            threading.Thread(target=self._help, args=(helper, f"helper {number}"), daemon=True)
            for number, helper in enumerate(helpers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            with self.changed:
                self.over = True
                self.changed.notify_all()
                busy = set(self.shares.running)
            for number, helper in enumerate(helpers):
                if f"helper {number}" in busy:
                    helper.drop()
            for thread in threads:
                thread.join()

    def _help(self, helper: Helper, name: str) -> None:
        losses = 0
        while not self.over:
            try:
                helper.prepare(self.setup, lambda: self.over)
                while (running := self._next(name)) is not None:
                    self._done(name, helper.attack(self._task(running), partial(self.at, running)))
                    losses = 0
                return
            except HelperLostError as error:
                losses += 1
                with self.changed:
                    if self.shares.lose(name) or losses > LOST:
                        self._ends_without(error)
                        return
                    self.changed.notify_all()
            # The attack and the model are the user's code: they may raise anything, there as here.
            except BaseException as error:  # noqa: BLE001
                with self.changed:
                    self.shares.running.pop(name, None)
                    self._ends_without(error)
                return

    def _ends_without(self, error: BaseException) -> None:
        """A helper cannot help. Where the user asked for it, that is an error; else a finding, and the others go on."""
        if self.wanted:
            self.error = self.error or error
        else:
            message = "another process, which would have made it faster, cannot help with the attack"
            self.engine.victim.findings.append(slower("attacked-alone", message, error))
        self.changed.notify_all()

    def _task(self, running: Running) -> Task:
        span = slice(running.first, running.last)
        keep = max(0, min(self.engine.keep, running.last) - running.first)
        return Task(self.setup, self.stream, running.first, self.index[span], self.logits[span], keep)

    def _next(self, name: str) -> Running | None:
        """Wait for a range; None: all is done, or nothing can be."""
        with self.changed:
            while not (self.over or self.error is not None or self.shares.finished):
                if (running := self.shares.take(name)) is not None:
                    return running
                self.changed.wait(_LOOK)
        return None

    def _done(self, name: str, shard: Shard) -> None:
        with self.changed:
            if self.shares.give(name, shard):
                self.kept.save(shard)
            self._show()
            self.changed.notify_all()

    def at(self, running: Running, share: float) -> None:
        """Such a share of a range is done."""
        running.share = share
        with self.changed:
            self._show()

    def _show(self) -> None:
        self.shown.to(self.shares.progress())

    def needed(self, running: Running) -> bool:
        """Whether a range is still to be attacked."""
        return not (self.over or self.error is not None or self.shares.has(running.first))


class _Watch:
    """The `Watch` of this process's own ranges."""

    def __init__(self, evaluation: _Evaluation, name: str, running: Running, parts: int) -> None:
        self._evaluation, self._running, self._share = evaluation, running, ShareOfParts(parts)

    def begin(self, name: str, total: int) -> None:
        self._share.begin(total)

    def at(self, done: int) -> None:
        if not self._evaluation.needed(self._running):
            raise _NotNeededError
        self._evaluation.at(self._running, self._share.at(done))


class ShareOfParts:
    """Which share of an attack of several parts is done; each part counts the same, as their times are not known."""

    def __init__(self, parts: int) -> None:
        self._parts, self._begun, self._total = max(1, parts), 0, 1

    def begin(self, total: int) -> None:
        """The next part begins."""
        self._begun, self._total = self._begun + 1, max(1, total)

    def at(self, done: int) -> float:
        """So much of this part is done."""
        return min(1.0, (self._begun - 1 + done / self._total) / self._parts)
