"""Attacks with a loop of their own: called batch by batch, each batch at one ε."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.base import BatchAttack
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.names.loading import is_users
from epsbench.harness.run.attack.attack_run import AttackRun
from epsbench.harness.run.attack.global_draws import GlobalDraws
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Ledger, Outcome
from epsbench.harness.run.attack.query_log import QueryLog
from epsbench.harness.run.attack.read_ahead import ReadAhead
from epsbench.harness.run.attack.returned import checked_images
from epsbench.harness.run.attack.schedule import Each
from epsbench.harness.run.attack.step import unchanged
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.attack.watch import Unwatched, Watch
from epsbench.harness.run.machine.memory import is_out_of_memory, release

SEEDS = 2**32  # NumPy takes no larger seed, and those of an ensemble's parts are larger


class Batches:
    """One such attack over all its ε. ``size`` is the number of rows a call may have; out of memory halves it."""

    def __init__(
        self,
        run: AttackRun,
        victim: Victim,
        judge: Judge,
        targets: Targets,
        ledger: Ledger,
        schedule: Each,
        size: int,
    ) -> None:
        self.attack, self.seed, self.white_box = cast(BatchAttack, run.attack), run.seed, not run.last_only
        self.victim, self.judge, self.targets, self.ledger, self.schedule = victim, judge, targets, ledger, schedule
        self.size = size
        self.watch: Watch = Unwatched()
        self.draws = GlobalDraws(watched=is_users(run.attack))

    def run(self) -> Iterator[Outcome]:
        """Outcomes in order of ε, each as soon as its last verdict is in."""
        schedule, done = self.schedule, 0
        ahead = ReadAhead(self.targets, schedule)
        while done < schedule.eps_count:
            rows = schedule.take(self.size)
            ahead.after(len(rows), self.size)
            for e in np.unique(schedule.split(rows)[0]):
                self._rows_of_one_eps(rows[schedule.split(rows)[0] == e])
            while done < schedule.eps_count and schedule.finished(done):
                yield self.ledger.imply(done, schedule.fooled[done])
                done += 1

    def _rows_of_one_eps(self, rows: np.ndarray) -> None:
        while len(rows):
            exhausted = False
            chosen = rows[: self.size]
            try:
                verdicts = self._call(chosen)
            except (RuntimeError, MemoryError) as error:
                if len(chosen) == 1 or not is_out_of_memory(error):
                    raise
                exhausted = True
            if exhausted:
                release()
                self.size = len(chosen) // 2
                continue
            self.schedule.settle(chosen, verdicts[0] > 0, verdicts[1])
            self.watch.at(int(self.schedule.settled.sum()) * self.schedule.restarts)
            rows = rows[len(chosen) :]

    def _call(self, rows: np.ndarray) -> np.ndarray:
        """Attack some rows of one ε, judge what comes back, and note both; returns `Ledger.verdicts`."""
        started, before = time.perf_counter(), (self.victim.forwards, self.victim.backwards)
        eps_index, restart, example = self.schedule.split(rows)
        outcome, device = self.ledger.outcomes[eps_index[0]], self.targets.labels.device
        at, again = torch.from_numpy(example).to(device), torch.from_numpy(restart).to(device)
        x, y = self.targets.pixels(at), self.targets.labels[at]
        eps = torch.full((len(x), 1, 1, 1), float(outcome.eps), device=device)
        log = QueryLog(self.victim, x, y, eps, self.ledger.norm)
        # Other libraries draw from the global generators: seeded for each batch, and put back.
        with unchanged(x, y, eps), isolated((self.seed * 1_000_003 + int(rows[0])) % SEEDS), self.draws:
            images = self.attack.perturb(log, x, y, eps, self.targets.noise(self.seed, at, again))
        outcome.returned.unkeyed = self.draws.count
        images = checked_images(self.attack, images, x)
        outcome.returned.note(images, x, eps, self.ledger.norm)
        x_adv = self.attack.norm.into_ball(x, images, eps)
        verdicts = self.ledger.verdicts(at, x_adv, self.size)
        if self.white_box:
            self._note_queries(log, x_adv, at, verdicts[0] > 0, outcome)
        self.ledger.note(eps_index, example, verdicts, x_adv)
        outcome.forwards += self.victim.forwards - before[0]
        outcome.backwards += self.victim.backwards - before[1]
        outcome.judge_forwards += len(rows) * self.judge.votes
        outcome.seconds += time.perf_counter() - started
        return verdicts

    def _note_queries(self, log: QueryLog, x_adv: Tensor, at: Tensor, fooled: np.ndarray, outcome: Outcome) -> None:
        """Count images that fooled on the way and not at the end. The judge decides about those too."""
        stands = torch.from_numpy(~fooled[: len(log.y)]).to(log.y.device)
        doubtful = stands & log.seen
        lost = torch.zeros_like(doubtful)
        if bool(doubtful.any()):
            y, examples = log.y[doubtful], self.targets.index[at[: len(log.y)][doubtful]]
            _, judged = self.judge.verdict(log.candidate[doubtful], y, self.size, examples)
            lost[doubtful] = judged != y
        outcome.watched += len(log.y)
        outcome.lost += int(lost.sum())
        outcome.withstood += int(stands.sum())
        outcome.short += int((stands & log.short(x_adv)).sum())
        outcome.returned.elsewhere += int(log.elsewhere.sum())
