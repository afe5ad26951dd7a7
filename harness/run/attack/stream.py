"""An attack as one stream of rows through fixed-size slots: which row is where, and for how long.

What happens to the rows in the slots is `epsbench.harness.run.attack.turn`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.norms.base import RowNoise
from epsbench.harness.run.attack.attack_run import AttackRun
from epsbench.harness.run.attack.ledger import Ledger, Outcome
from epsbench.harness.run.attack.read_ahead import ReadAhead
from epsbench.harness.run.attack.schedule import Each
from epsbench.harness.run.attack.slots import Bundle
from epsbench.harness.run.attack.turn import Turn
from epsbench.harness.run.attack.turn_graphs import TurnGraphs
from epsbench.harness.run.attack.watch import Unwatched, Watch
from epsbench.harness.run.machine.memory import is_out_of_memory, release
from epsbench.harness.run.noise import NoiseAhead

NONE = np.empty(0, dtype=np.int64)
SHOWN_SECONDS = 0.1  # between two looks at how far the attack is


class Stream:
    """One attack over all its ε and attempts.

    Again and again: fill the free slots, take some turns, retire the rows that stopped, and judge the retired rows once
    enough of them wait.
    """

    def __init__(self, run: AttackRun, turn: Turn, ledger: Ledger, schedule: Each, *, slots: int, poll: int) -> None:
        """``slots`` rows are attacked at a time; ``poll`` steps run between two looks at the device."""
        self.turn, self.ledger, self.schedule = turn, ledger, schedule
        self.targets, self.clean = turn.targets, turn.asks.clean
        self.early_stop, self.steps = run.early_stop, turn.steps
        self.size, self.poll = slots, poll
        self.turns = TurnGraphs(turn, schedule.settled.size * schedule.restarts * turn.steps / max(1, slots))
        asks = turn.asks
        self.answer_work, self.answer_forwards, self.answer_gradients = asks.work, asks.forwards, asks.gradients
        self.device = self.targets.labels.device
        self.ahead = ReadAhead(self.targets, schedule)
        self.slots, self.holes = Bundle(NONE, NONE, {}), NONE  # positions in the slots whose rows have left
        self.parked: list[Bundle] = []  # rows that go on where they stood as soon as there is a slot
        self.waiting: list[Bundle] = []  # rows that the judge has not seen
        self.work = np.zeros(len(run.eps))  # since seconds were last split, in forwards
        self.unpaid = 0.0
        self.counts = np.zeros(len(run.eps), dtype=np.int64)  # of the rows in the slots, by ε
        self.noise_ahead: NoiseAhead | None = None  # their noise, from where they were when the slots last changed
        self.taken = 0  # steps since then
        self.watch: Watch = Unwatched()
        self.queries_done = 0

    def run(self) -> Iterator[Outcome]:
        """Outcomes in order of ε, each as soon as its last verdict is in."""
        next_eps, shown = 0, 0.0
        while True:
            started, shared = time.perf_counter(), self.clean.seconds
            self._fill()
            if len(self.slots):
                self._burst()
                self._retire()
            waiting = sum(map(len, self.waiting))
            judged = waiting > 0 and (waiting >= self._judge_batch() or self._starving())
            if judged:
                self._judge()
            ended = time.perf_counter()
            self.unpaid += ended - started - (self.clean.seconds - shared)
            if judged or ended - shown > SHOWN_SECONDS:
                self._show()
                shown = ended
            if not judged:  # nothing was settled
                continue
            self._charge()
            while next_eps < len(self.work) and self.schedule.finished(next_eps):
                yield self.ledger.imply(next_eps, self.schedule.fooled[next_eps])
                next_eps += 1
            if next_eps == len(self.work):
                return

    def _show(self) -> None:
        """Tell `watch` how much is done. What an early success or another ε made unnecessary counts as done."""
        steps = max(1, self.steps)
        occupied = np.delete(np.arange(len(self.slots)), self.holes)
        flying = [(self.slots.rows[occupied], self.slots.step[occupied])]
        flying += [(each.rows, each.step) for each in (*self.parked, *self.waiting)]
        before = self.schedule.rows_done() + sum(self.schedule.rows_before(rows) for rows, _ in flying)
        done = before * steps + sum(int(step.sum()) for _, step in flying)
        self.queries_done = max(self.queries_done, done)
        self.watch.at(self.queries_done)

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
                ids = self.schedule.take(room)
                self.ahead.after(len(ids), self.size)
                bundle = self._fresh(ids)
            else:
                break
            if bundle.step[0] >= self.steps:  # it asks nothing, or has had the shared gradient
                self.waiting.append(bundle)
            else:
                new.append(bundle)
                room -= len(bundle)
        if new or len(self.holes):
            self.slots = self.slots.without(self.holes, Bundle.cat(new) if new else None)
            self.holes = NONE
            self._slots_changed()

    def _slots_changed(self) -> None:
        """Other rows are in the slots: what is known of them all is made anew."""
        t = self.slots.tensors
        self.counts = np.bincount(self.schedule.split(self.slots.rows)[0], minlength=len(self.work))
        self.noise_ahead, self.taken = (NoiseAhead(t["noise"], t["step"]) if len(self.slots) else None), 0

    def _fresh(self, ids: np.ndarray) -> Bundle:
        """Rows before their first question, or after the shared answer at the clean image."""
        points = (torch.from_numpy(part).to(self.device) for part in self.schedule.split(ids))
        tensors, shared, taken = self.turn.first(*points)
        return Bundle(ids, np.full_like(ids, taken), tensors, shared)

    def _burst(self) -> None:
        """Some steps of all slots without asking the device anything."""
        longest = int((self.steps - self.slots.step).min())
        count, taken = (min(self.poll, longest) if self.early_stop or self.turn.ends else longest), 0
        exhausted = False
        while taken < count and not exhausted:
            try:
                self.turns.take(self.slots.tensors, self.slots.shared, partial(self._noise, self.taken))
                taken += 1
                self.taken += 1
            except (RuntimeError, MemoryError) as error:
                if len(self.slots) == 1 or not is_out_of_memory(error):
                    raise
                exhausted = True
        self._count(taken)
        # Before any row is parked: its count of steps goes with it. `_retire` corrects the count of stopped rows.
        self.slots.step = self.slots.step + taken
        if exhausted:
            self._shrink()

    def _noise(self, taken: int) -> RowNoise:
        """The noise of the rows in the slots, so many steps after the slots last changed."""
        assert self.noise_ahead is not None
        return self.noise_ahead.after(taken)

    def _count(self, taken: int) -> None:
        """Count the passes that each ε took in a burst."""
        self.work += self.answer_work * taken * self.counts
        for outcome, count in zip(self.ledger.outcomes, self.counts.tolist(), strict=True):
            outcome.forwards += taken * count * self.answer_forwards
            outcome.backwards += taken * count * self.answer_gradients

    def _charge(self) -> None:
        """Split the seconds of whole turns, packing included, among the ε by the work they took."""
        if self.work.any():
            for outcome, share in zip(self.ledger.outcomes, self.work / self.work.sum(), strict=True):
                outcome.seconds += self.unpaid * float(share)
            self.unpaid, self.work = 0.0, np.zeros(len(self.work))

    def _shrink(self) -> None:
        """Halve the slots; the rows that lost theirs are parked as they stand."""
        release()
        self.size = max(1, len(self.slots) // 2)
        everyone = np.arange(len(self.slots))
        self.parked.append(self.slots.take(everyone[self.size :]))
        self.slots = self.slots.take(everyone[: self.size])
        self._slots_changed()

    def _retire(self) -> None:
        """Move rows that look fooled, or have no step left, out of their slots."""
        slots, stopped = self.slots, np.zeros(len(self.slots), dtype=bool)
        looking_is_free = self.device.type == "cpu"
        if self.early_stop and looking_is_free and not self.turn.ends:  # most often none stopped
            if bool(slots.tensors["stopped"].any()):
                stopped = slots.tensors["stopped"].numpy().copy()
                slots.step = slots.tensors["step"].numpy().copy()
        elif self.early_stop:  # the one question to the device: which rows stopped, and after how many steps
            t = slots.tensors
            answer = torch.where(t["stopped"], -1 - t["step"], t["step"]).cpu().numpy()
            stopped = answer < 0
            slots.step = np.where(stopped, -1 - answer, answer)
        elif self.turn.ends:
            slots.step = slots.tensors["step"].cpu().numpy()
        self.holes = np.flatnonzero(stopped | (slots.step >= self.steps))
        if len(self.holes):
            self.waiting.append(slots.take(self.holes))

    def _judge(self) -> None:
        """Judge every waiting row. A candidate that the judge refuses goes on from where it stood."""
        bundle, self.waiting = Bundle.cat(self.waiting), []
        t = bundle.tensors
        eps_index, _, example = self.schedule.split(bundle.rows)
        at = torch.from_numpy(example).to(self.device)
        if self.turn.roams:
            t["point"] = self.ledger.norm.into_ball(self.targets.pixels(at), t["point"], t["eps"])
        verdicts = self.ledger.verdicts(at, t["point"], self.size)
        asked = np.ones(len(bundle), dtype=int)
        if self.turn.keeps_best:
            self._judge_best(bundle, at, verdicts, asked)
        fooled = verdicts[0] > 0
        refused = ~fooled & (bundle.step < self.steps)
        if refused.any():
            back = bundle.take(np.flatnonzero(refused))
            back.tensors["threshold"] = back.tensors["margin"].clone()
            back.tensors["stopped"] = torch.zeros_like(back.tensors["stopped"])
            self.parked.append(back)
        over = np.flatnonzero(~refused)
        self.ledger.note(eps_index[over], example[over], verdicts[:, over], t["point"][torch.from_numpy(over)])
        self.schedule.settle(bundle.rows[over], fooled[over], verdicts[1, over])
        counts = np.bincount(eps_index, weights=asked, minlength=len(self.work)) * self.ledger.judge.votes
        self.work += counts
        for outcome, count in zip(self.ledger.outcomes, counts.tolist(), strict=True):
            outcome.judge_forwards += int(count)

    def _judge_best(self, bundle: Bundle, at: Tensor, verdicts: np.ndarray, asked: np.ndarray) -> None:
        """Judge the best iterate of rows whose last image does not fool, where the victim takes it for fooled."""
        t = bundle.tensors
        doubtful = np.flatnonzero((verdicts[0] == 0) & (t["best_margin"] < 0).cpu().numpy())
        if not len(doubtful):
            return
        rows = torch.from_numpy(doubtful).to(self.device)
        again = self.ledger.verdicts(at[rows], t["best"][rows], self.size)
        asked[doubtful] += 1
        better = again[0] > 0
        verdicts[:, doubtful[better]] = again[:, better]
        t["point"][rows[torch.from_numpy(better).to(self.device)]] = t["best"][rows][torch.from_numpy(better)]
