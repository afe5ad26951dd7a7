"""The engine: one attack at several ε against one victim, whatever kind of attack it is.

Gradient attacks run as a packed stream (`epsbench.harness.run.attack.stream`); an attack that brings its own loop
(`epsbench.attacks.base.Attack`) is called batch by batch. Both are projected and judged here, so neither can
leave its ball, its box, or decide for itself what counts as fooled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.base import Attack, GradientAttack
from epsbench.attacks.norms import NORMS
from epsbench.harness.run.attack.clean_gradients import CleanGradients
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import Ledger, Outcome
from epsbench.harness.run.attack.projection import into_ball
from epsbench.harness.run.attack.query_log import Watch
from epsbench.harness.run.attack.schedule import CURVES, Each
from epsbench.harness.run.attack.step import unchanged
from epsbench.harness.run.attack.stream import Stream
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import is_out_of_memory, release

FOOLED_STEPS = 0.2  # of its steps, about, does an attack take that fools and stops early; only the order goes by it


@dataclass
class Engine:
    """Attacks on one victim. ``batch`` is the number of slots, halved when memory runs out.

    Where ``white_box`` is false the victim is another model than the judge's: images are made to the end on the one,
    and the last of each is judged by the other, whatever became of it on the way.
    ``keep`` is how many of the first targets keep their image; ``poll`` how many steps run between two
    looks at the device (1 on a CPU, where looking costs nothing).
    """

    victim: Victim
    judge: Judge
    targets: Targets
    batch: int
    keep: int = 0
    poll: int = 0
    white_box: bool = True
    clean: CleanGradients = field(init=False)

    def __post_init__(self) -> None:
        self.clean = CleanGradients(self.victim, self.targets, self.batch)
        self.poll = self.poll or (1 if self.victim.device.type == "cpu" else 8)

    def run(
        self,
        attack: Attack | GradientAttack,
        eps: Sequence[Fraction],
        *,
        seed: int,
        early_stop: bool = True,
        curve: str = "each",
    ) -> Iterator[Outcome]:
        """An `Outcome` for each ε (pixel units, ascending), in order, each as soon as it is complete.

        ``curve`` names how the ε relate (`epsbench.harness.run.attack.schedule`): "each", "nested" or "bisect".
        """
        eps = list(eps)
        # Measured by our own norm of that name, whatever an attack makes of the one it was given.
        norm = NORMS.get(attack.norm.name, attack.norm)
        ledger = Ledger(self.judge, self.targets, norm, eps, self.keep)
        if not len(self.targets):
            yield from ledger.outcomes
            return
        restarts = attack.restarts if isinstance(attack, GradientAttack) else 1
        stops_early = early_stop and self.white_box and isinstance(attack, GradientAttack) and attack.steps > 1
        price = (FOOLED_STEPS if stops_early else 1.0) / restarts
        schedule = CURVES[curve]([float(e) for e in eps], len(self.targets), restarts, price)
        if isinstance(attack, GradientAttack):
            yield from self._stream(attack, eps, ledger, schedule, seed, early_stop)
        else:
            yield from self._perturb(attack, ledger, schedule, seed)

    def _stream(
        self, attack: GradientAttack, eps: list[Fraction], ledger: Ledger, schedule: Each, seed: int, early_stop: bool
    ) -> Iterator[Outcome]:
        rows = len(self.targets) * len(eps)
        stream = Stream(
            attack,
            eps,
            self.victim,
            self.targets,
            ledger,
            self.clean,
            schedule,
            batch=min(self.batch, rows),
            seed=seed,
            early_stop=early_stop and self.white_box,
            last_only=not self.white_box,
            poll=self.poll,
        )
        for outcome in stream.run():
            if stream.size < min(self.batch, rows):  # memory ran out; later streams begin with what fitted
                self.batch = stream.size
            if stream.from_clean:
                # Priced as if it had been attacked alone: the shared gradient in full, and its time.
                outcome.shared_backwards = int(outcome.attacked.sum())
                outcome.seconds += self.clean.seconds * outcome.shared_backwards / len(self.targets)
            yield outcome

    def _perturb(self, attack: Attack, ledger: Ledger, schedule: Each, seed: int) -> Iterator[Outcome]:
        """An attack that brings its own loop, batch by batch, each batch of one ε."""
        done = 0
        while done < schedule.eps_count:
            rows = schedule.take(self.batch)
            for e in np.unique(schedule.split(rows)[0]):
                self._perturb_rows(attack, rows[schedule.split(rows)[0] == e], ledger, schedule, seed)
            while done < schedule.eps_count and schedule.finished(done):
                yield ledger.imply(done, schedule.fooled[done])
                done += 1

    def _perturb_rows(self, attack: Attack, rows: np.ndarray, ledger: Ledger, schedule: Each, seed: int) -> None:
        """Attack and judge some rows of one ε; out of memory halves the batch for good."""
        while len(rows):
            exhausted = False
            chosen = rows[: self.batch]
            try:
                verdicts = self._judged(attack, chosen, ledger, schedule, seed)
            except (RuntimeError, MemoryError) as error:
                if len(chosen) == 1 or not is_out_of_memory(error):
                    raise
                exhausted = True
            if exhausted:
                release()
                self.batch = len(chosen) // 2
                continue
            schedule.settle(chosen, verdicts[0] > 0, verdicts[1])
            rows = rows[len(chosen) :]

    def _judged(self, attack: Attack, rows: np.ndarray, ledger: Ledger, schedule: Each, seed: int) -> np.ndarray:
        started, before = time.perf_counter(), (self.victim.forwards, self.victim.backwards)
        eps_index, restart, example = schedule.split(rows)
        outcome, device = ledger.outcomes[eps_index[0]], self.targets.labels.device
        at, again = torch.from_numpy(example).to(device), torch.from_numpy(restart).to(device)
        x, y = self.targets.pixels(at), self.targets.labels[at]
        eps = torch.full((len(x), 1, 1, 1), float(outcome.eps), device=device)
        watch = Watch(self.victim, x, y, eps, ledger.norm)
        with unchanged(x, y, eps):
            images = attack.perturb(watch, x, y, eps, self.targets.noise(seed, at, again))
        x_adv = into_ball(attack.norm, x, images.detach().float(), eps)
        verdicts = ledger.verdicts(x, x_adv, y, self.batch)
        if self.white_box:
            self._note_watched(watch, x_adv, verdicts[0] > 0, outcome)
        ledger.note(eps_index, example, verdicts, x_adv)
        outcome.forwards += self.victim.forwards - before[0]
        outcome.backwards += self.victim.backwards - before[1]
        outcome.judge_forwards += len(rows)
        outcome.seconds += time.perf_counter() - started
        return verdicts

    def _note_watched(self, watch: Watch, x_adv: Tensor, fooled: np.ndarray, outcome: Outcome) -> None:
        """Count what the attack found on its way and does not return. Iterates too are judged in float32."""
        stands = torch.from_numpy(~fooled[: len(watch.y)]).to(watch.y.device)
        doubtful = stands & watch.seen
        lost = torch.zeros_like(doubtful)
        if bool(doubtful.any()):
            judged = self.judge.logits(watch.candidate[doubtful], self.batch).argmax(1)
            lost[doubtful] = judged != watch.y[doubtful]
        outcome.watched += len(watch.y)
        outcome.lost += int(lost.sum())
        outcome.withstood += int(stands.sum())
        outcome.short += int((stands & watch.short(x_adv)).sum())
