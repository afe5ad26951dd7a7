"""Gradient attacks as one stream of rows through fixed-size slots."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.base import GradientAttack
from epsbench.harness.run.attack.attack_run import AttackRun
from epsbench.harness.run.attack.clean_gradients import CleanGradients
from epsbench.harness.run.attack.ledger import Ledger, Outcome
from epsbench.harness.run.attack.projection import allowed, within
from epsbench.harness.run.attack.schedule import Each
from epsbench.harness.run.attack.slots import Bundle
from epsbench.harness.run.attack.step import advance, hold
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.machine.memory import is_out_of_memory, release

NONE = np.empty(0, dtype=np.int64)


class Stream:
    """One gradient attack over all its ε and restarts.

    A turn: fill the free slots, take some steps, retire the rows that stopped, and judge the retired rows once enough
    of them wait.
    """

    def __init__(
        self,
        run: AttackRun,
        victim: Victim,
        targets: Targets,
        ledger: Ledger,
        clean: CleanGradients,
        schedule: Each,
        *,
        slots: int,
        poll: int,
    ) -> None:
        """``slots`` rows are attacked at a time; ``poll`` steps run between two looks at the device."""
        assert isinstance(run.attack, GradientAttack)
        self.attack, self.seed, self.early_stop = run.attack, run.seed, run.early_stop
        self.victim, self.targets, self.ledger, self.clean = victim, targets, ledger, clean
        self.size, self.poll = slots, poll
        # Without early stopping a row may fool on the way and not at its end: its best iterate is kept too.
        self.keeps_best = not run.early_stop and not run.last_only
        self.device = targets.labels.device
        self.schedule = schedule
        self.eps = torch.tensor([float(e) for e in run.eps], device=self.device)
        self.from_clean = not run.attack.random_start and clean.fits()
        self.slots, self.holes = Bundle(NONE, NONE, {}), NONE  # positions in the slots whose rows have left
        self.parked: list[Bundle] = []  # rows that go on where they stood as soon as there is a slot
        self.waiting: list[Bundle] = []  # rows that the judge has not seen
        self.work = np.zeros(len(run.eps))  # since seconds were last split, in forwards
        self.unpaid = 0.0

    def run(self) -> Iterator[Outcome]:
        """Outcomes in order of ε, each as soon as its last verdict is in."""
        next_eps = 0
        while True:
            started, shared = time.perf_counter(), self.clean.seconds
            self._fill()
            if len(self.slots):
                self._burst()
                self._retire()
            waiting = sum(map(len, self.waiting))
            if waiting and (waiting >= self._judge_batch() or self._starving()):
                self._judge()
            self._charge(time.perf_counter() - started - (self.clean.seconds - shared))
            while next_eps < len(self.eps) and self.schedule.finished(next_eps):
                yield self.ledger.imply(next_eps, self.schedule.fooled[next_eps])
                next_eps += 1
            if next_eps == len(self.eps):
                return

    def _judge_batch(self) -> int:
        """How many rows wait until they are judged together."""
        return max(self.size, self.ledger.judge.batch)

    def _occupied(self) -> int:
        """How many slots hold a row."""
        return len(self.slots) - len(self.holes)

    def _starving(self) -> bool:
        """Whether only a verdict can bring new rows to free slots."""
        return not self._occupied() or not (len(self.schedule) or self.parked)

    def _fill(self) -> None:
        """Give every free slot a row: first the parked ones, then new ones."""
        new: list[Bundle] = []
        room = self.size - self._occupied()
        while room and sum(map(len, self.waiting)) < self._judge_batch():
            if self.parked:
                bundle = Bundle.cat(self.parked)
                self.parked = [bundle.take(np.arange(room, len(bundle)))] if len(bundle) > room else []
                bundle = bundle.take(np.arange(min(room, len(bundle))))
            elif len(self.schedule):
                bundle = self._fresh(self.schedule.take(room))
            else:
                break
            if self.from_clean and self.attack.steps == 1:  # the shared gradient was its only step
                self.waiting.append(bundle)
            else:
                new.append(bundle)
                room -= len(bundle)
        if new or len(self.holes):
            self.slots = self.slots.without(self.holes, Bundle.cat(new) if new else None)
            self.holes = NONE

    def _fresh(self, rows: np.ndarray) -> Bundle:
        """Rows at their start: a random point of the ball, or the clean image and the shared gradient's step."""
        eps_index, restart, example = (torch.from_numpy(part).to(self.device) for part in self.schedule.split(rows))
        x = self.victim.laid_out(self.targets.pixels(example))
        eps = self.eps[eps_index].view(-1, 1, 1, 1)
        norm, state = self.attack.norm, self.attack.state(x)
        region = allowed(norm, x, eps)
        step = torch.zeros_like(example)
        if self.attack.random_start:
            noise = self.targets.noise(self.seed, example, restart)
            x_adv = within(norm, region, x + norm.start(noise, x, eps), eps)
        elif self.from_clean:
            gradient = self.clean.at(example)
            x_adv, state = advance(self.attack, region, x, gradient, eps, step.view(-1, 1, 1, 1), state)
            step += 1
        else:
            x_adv = x.clone()
        tensors = {"x_adv": x_adv, "y": self.targets.labels[example], "eps": eps, "step": step} | region
        # A row goes to the judge when its margin is below its threshold. If the judge disagrees, the threshold drops
        # to that margin.
        zero = torch.zeros_like(step, dtype=torch.float32)
        tensors |= {"stopped": torch.zeros_like(step, dtype=torch.bool), "margin": zero, "threshold": zero.clone()}
        if self.keeps_best:
            tensors |= {"best": x_adv.clone(), "best_margin": zero.clone()}
        shared = {f"state.{name}": value for name, value in state.items()}
        return Bundle(rows, np.full_like(rows, int(self.from_clean)), tensors | shared, frozenset(shared))

    def _burst(self) -> None:
        """Some steps of all slots without asking the device anything."""
        longest = int((self.attack.steps - self.slots.step).min())
        count, taken = (min(self.poll, longest) if self.early_stop else longest), 0
        exhausted = False
        while taken < count and not exhausted:
            try:
                self._one_step()
                taken += 1
            except (RuntimeError, MemoryError) as error:
                if len(self.slots) == 1 or not is_out_of_memory(error):
                    raise
                exhausted = True
        self._count(taken)
        # Before any row is parked: its count of steps goes with it. `_retire` corrects the count of stopped rows.
        self.slots.step = self.slots.step + taken
        if exhausted:
            self._shrink()

    def _one_step(self) -> None:
        t = self.slots.tensors
        gradient, logits = self.victim.gradient(t["x_adv"], t["y"])
        state = {name[6:]: t[name] for name in self.slots.shared}
        step = t["step"].view(-1, 1, 1, 1)
        moved, new_state = advance(self.attack, t, t["x_adv"], gradient, t["eps"], step, state)
        new = {"x_adv": moved} | {f"state.{name}": value for name, value in new_state.items()}
        margin = self.victim.margin(logits, t["y"])
        if self.early_stop:
            stopped = t["stopped"] | (margin < t["threshold"])
            new = {name: hold(stopped, t[name], value, owned=name == "x_adv") for name, value in new.items()}
            new |= {"stopped": stopped, "step": t["step"] + ~stopped, "margin": margin}
        else:
            new["step"] = t["step"] + 1
        if self.keeps_best:
            better = margin < t["best_margin"]
            new["best"] = torch.where(better.view(-1, 1, 1, 1), t["x_adv"], t["best"])
            new["best_margin"] = torch.where(better, margin, t["best_margin"])
        t.update(new)  # only now: if anything above raises, the slots are as they were

    def _count(self, taken: int) -> None:
        """Count the gradients that each ε took in a burst."""
        counts = np.bincount(self.schedule.split(self.slots.rows)[0], minlength=len(self.eps))
        self.work += 3 * taken * counts  # a gradient is a forward and, at twice its cost, a backward
        for outcome, count in zip(self.ledger.outcomes, counts.tolist(), strict=True):
            outcome.forwards += taken * count
            outcome.backwards += taken * count

    def _charge(self, seconds: float) -> None:
        """Split the seconds of whole turns, packing included, among the ε by the work they took."""
        self.unpaid += seconds
        if self.work.any():
            for outcome, share in zip(self.ledger.outcomes, self.work / self.work.sum(), strict=True):
                outcome.seconds += self.unpaid * float(share)
            self.unpaid, self.work = 0.0, np.zeros(len(self.eps))

    def _shrink(self) -> None:
        """Halve the slots; the rows that lost theirs are parked as they stand."""
        release()
        self.size = max(1, len(self.slots) // 2)
        everyone = np.arange(len(self.slots))
        self.parked.append(self.slots.take(everyone[self.size :]))
        self.slots = self.slots.take(everyone[: self.size])

    def _retire(self) -> None:
        """Move rows that look fooled, or have no step left, out of their slots."""
        slots, stopped = self.slots, np.zeros(len(self.slots), dtype=bool)
        if self.early_stop:  # the one question to the device: which rows stopped, and after how many steps
            t = slots.tensors
            answer = torch.where(t["stopped"], -1 - t["step"], t["step"]).cpu().numpy()
            stopped = answer < 0
            slots.step = np.where(stopped, -1 - answer, answer)
        self.holes = np.flatnonzero(stopped | (slots.step >= self.attack.steps))
        if len(self.holes):
            self.waiting.append(slots.take(self.holes))

    def _judge(self) -> None:
        """Judge every waiting row. A candidate that the judge refuses goes on from where it stood."""
        bundle, self.waiting = Bundle.cat(self.waiting), []
        t = bundle.tensors
        eps_index, _, example = self.schedule.split(bundle.rows)
        x = self.targets.pixels(torch.from_numpy(example).to(self.device))
        verdicts = self.ledger.verdicts(x, t["x_adv"], t["y"], self.size)
        asked = np.ones(len(bundle), dtype=int)
        if self.keeps_best:
            self._judge_best(bundle, x, verdicts, asked)
        fooled = verdicts[0] > 0
        refused = ~fooled & (bundle.step < self.attack.steps)
        if refused.any():
            back = bundle.take(np.flatnonzero(refused))
            back.tensors["threshold"] = back.tensors["margin"].clone()
            back.tensors["stopped"] = torch.zeros_like(back.tensors["stopped"])
            self.parked.append(back)
        over = np.flatnonzero(~refused)
        self.ledger.note(eps_index[over], example[over], verdicts[:, over], t["x_adv"][torch.from_numpy(over)])
        self.schedule.settle(bundle.rows[over], fooled[over], verdicts[1, over])
        counts = np.bincount(eps_index, weights=asked, minlength=len(self.eps))
        self.work += counts
        for outcome, count in zip(self.ledger.outcomes, counts.tolist(), strict=True):
            outcome.judge_forwards += int(count)

    def _judge_best(self, bundle: Bundle, x: Tensor, verdicts: np.ndarray, asked: np.ndarray) -> None:
        """Judge the best iterate of rows whose last image does not fool, where the victim takes it for fooled."""
        t = bundle.tensors
        doubtful = np.flatnonzero((verdicts[0] == 0) & (t["best_margin"] < 0).cpu().numpy())
        if not len(doubtful):
            return
        rows = torch.from_numpy(doubtful).to(self.device)
        again = self.ledger.verdicts(x[rows], t["best"][rows], t["y"][rows], self.size)
        asked[doubtful] += 1
        better = again[0] > 0
        verdicts[:, doubtful[better]] = again[:, better]
        t["x_adv"][rows[torch.from_numpy(better).to(self.device)]] = t["best"][rows][torch.from_numpy(better)]
