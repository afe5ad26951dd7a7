"""The helper's side of an evaluation in shards: its own victim, judge and slots, prepared as the owner's."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from epsbench.harness.isolation import global_state_kept
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.plan import Stream
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.merging import Shard
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.attack.watch import Watch
from epsbench.harness.run.audits.auditor import probe_size
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.corruption import corrupted
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.machine.environment import arithmetic
from epsbench.harness.run.machine.memory import keep_freed, peak_bytes, reset_peak
from epsbench.harness.run.robustness.mean_of_logits import as_one
from epsbench.harness.run.robustness.selection import targets_at
from epsbench.harness.run.speed.chosen import Chosen
from epsbench.harness.run.speed.prepare import prepare
from epsbench.harness.run.training.trained import trained


@dataclass(frozen=True)
class Setup:
    """What all shards of one attacker have in common."""

    cell: RobustnessCell
    """A cell of the attacked model: its data, its training, its corruption."""

    sources: tuple[RobustnessCell, ...]
    """The models whose gradients are followed, where it is not the attacked one."""

    precision: str
    """What the victim computes in."""

    chosen: Chosen
    """The forms that its owner found fastest."""

    whole: int
    """The number of all targets."""


@dataclass(frozen=True)
class Task:
    """An attack on some of the targets."""

    setup: Setup

    stream: Stream
    """The attack and its ε."""

    first: int
    """The position of the first target."""

    index: np.ndarray
    """Indices of these targets in the test split, (k,)."""

    logits: np.ndarray
    """The judge's logits at their clean images, (k, classes)."""

    keep: int
    """How many of the first ones keep their adversarial image."""


class Workbench:
    """Attacks shards, one after the other. What the last one needed is kept for the next."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._setup: Setup | None = None
        self._victim: Victim
        self._judge: Judge
        self._test: Examples

    def prepare(self, setup: Setup) -> None:
        """Load data and weights, and give the victim the forms that its owner chose."""
        if setup == self._setup:
            return
        self._setup, cell, context = None, setup.cell, self.context
        keep_freed(context.device)
        with arithmetic(context.precision(cell.precision)):
            data = context.data(cell.data, cell.limit)
            test = data.test[: cell.test_images]
            network, _ = trained(cell, data, context)
            self._judge = Judge(network, context.device)
            models = [trained(source, data, context)[0] for source in setup.sources]
            attacked = as_one(models) if models else network
            probe = slice(0, probe_size(len(test)))
            x, y = test.pixels(probe), test.labels[probe]
            self._victim = prepare(attacked, context.device, setup.precision, x, y)
            some = torch.arange(len(y), device=context.device)
            setup.chosen.apply(self._victim, self._judge, Targets(test.pixels, y, some))
            self._test = corrupted(test, cell.corruption, cell.severity) if cell.severity else test
        self._setup = setup

    def attack(self, task: Task, watch: Watch) -> Shard:
        """The outcomes of the attack on these targets."""
        self.prepare(task.setup)
        context, setup, stream = self.context, task.setup, task.stream
        index = torch.from_numpy(task.index).to(context.device)
        logits = torch.from_numpy(task.logits).to(context.device)
        targets = targets_at(self._test, index, logits)
        engine = Engine(
            self._victim, self._judge, targets, setup.chosen.batch, keep=task.keep, white_box=not setup.sources,
            watch=watch, forward_batch=setup.chosen.forward_batch, whole=setup.whole,
        )  # fmt: skip
        engine.know(logits)
        with ExitStack() as state:
            state.enter_context(global_state_kept())
            state.enter_context(arithmetic(context.precision(setup.cell.precision)))
            return attack_with(engine, stream, task.first, context.device_name())


def attack_with(engine: Engine, stream: Stream, first: int, device: str) -> Shard:
    """Attack all targets of an engine, whose first one is at position ``first`` of the evaluation."""
    reset_peak(engine.victim.device)
    began, cells = time.perf_counter(), stream.ascending
    one = cells[0]
    outcomes = tuple(
        engine.run(
            stream.attack, [cell.eps for cell in cells], seed=one.seed, early_stop=one.early_stop, curve=one.curve
        )
    )
    seconds, peak = time.perf_counter() - began, peak_bytes(engine.victim.device)
    return Shard(first, first + len(engine.targets), outcomes, engine.clean.zero, device, seconds, peak)
