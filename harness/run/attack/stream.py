"""An attack as one stream of rows through fixed-size slots."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.base import Attack, State
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms.base import RowNoise, per_row
from epsbench.attacks.rows import Answer, Rows
from epsbench.harness.run.attack import cycles
from epsbench.harness.run.attack.asks import Asks
from epsbench.harness.run.attack.attack_run import AttackRun
from epsbench.harness.run.attack.ledger import Ledger, Outcome
from epsbench.harness.run.attack.read_ahead import ReadAhead
from epsbench.harness.run.attack.returned import checked_step
from epsbench.harness.run.attack.schedule import ROUNDING, Each
from epsbench.harness.run.attack.slots import Bundle
from epsbench.harness.run.attack.step import hold, unchanged
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.watch import Unwatched, Watch
from epsbench.harness.run.machine.memory import is_out_of_memory, release
from epsbench.harness.run.noise import KeyedNoise, NoiseAhead

NONE = np.empty(0, dtype=np.int64)
SHOWN_SECONDS = 0.1  # between two looks at how far the attack is
_JUDGED = ("stopped", "margin", "threshold")  # what a row carries to the judge besides its image


class Stream:
    """One attack over all its ε and attempts.

    A turn: fill the free slots, take some steps, retire the rows that stopped, and judge the retired rows once enough
    of them wait.
    """

    def __init__(
        self, run: AttackRun, asks: Asks, targets: Targets, ledger: Ledger, schedule: Each, *, slots: int, poll: int
    ) -> None:
        """``slots`` rows are attacked at a time; ``poll`` steps run between two looks at the device."""
        self.attack, self.seed, self.early_stop = run.attack, run.seed, run.early_stop
        self.asks, self.targets, self.ledger = asks, targets, ledger
        self.victim, self.clean = asks.victim, asks.clean
        self.size, self.poll, self.steps = slots, poll, run.attack.budget()
        self.answer_work, self.answer_forwards, self.answer_gradients = asks.work, asks.forwards, asks.gradients
        # Points of an attack that may leave the ball count only where they are inside.
        self.roams = run.attack.roams()
        may_be_done = type(run.attack).done is not Attack.done
        self.cycles = run.early_stop and cycles.watched(run.attack) and not self.victim.random
        self.ends = may_be_done or self.cycles
        # Without early stopping a row may fool on the way and not at its end: its best iterate is kept too.
        self.keeps_best = not run.early_stop and not run.last_only
        self.device = targets.labels.device
        self.schedule, self.ahead = schedule, ReadAhead(targets, schedule)
        self.eps = torch.tensor([float(e) for e in run.eps], device=self.device)
        # A row may be done after its first answer, and whole batches of rows share that one.
        # A random model's would depend on who asked first.
        self.from_clean = run.attack.starts_clean() and asks.clean.fits() and not may_be_done and not self.victim.random
        self.region: tuple[str, ...] = ()
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
            while next_eps < len(self.eps) and self.schedule.finished(next_eps):
                yield self.ledger.imply(next_eps, self.schedule.fooled[next_eps])
                next_eps += 1
            if next_eps == len(self.eps):
                return

    def _show(self) -> None:
        """Tell `watch` how much is done. What an early success or another ε made unnecessary counts as done."""
        steps = max(1, self.steps)
        done = int(self.schedule.settled.sum()) * self.schedule.restarts * steps
        if self._occupied():
            _, attempt, _ = self.schedule.split(self.slots.rows)
            behind = attempt * steps + self.slots.step
            done += int(behind.sum() - behind[self.holes].sum())
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
        self.counts = np.bincount(self.schedule.split(self.slots.rows)[0], minlength=len(self.eps))
        self.noise_ahead, self.taken = (NoiseAhead(t["noise"], t["step"]) if len(self.slots) else None), 0

    def _fresh(self, ids: np.ndarray) -> Bundle:
        """Rows before their first question, or after the shared answer at the clean image."""
        eps_index, attempt, position = (torch.from_numpy(part).to(self.device) for part in self.schedule.split(ids))
        x = self.victim.laid_out(self.targets.pixels(position))
        tensors = {
            "x": x,
            "y": self.targets.labels[position],
            "eps": per_row(self.eps[eps_index]),
            "attempt": attempt,
            "position": position,
            "step": torch.zeros_like(position),
            "target": self.targets.labels[position],
            "noise": self.targets.noise_key(self.seed, position, attempt),
        }
        region = self._region(x, tensors["eps"])
        self.region = tuple(region)
        tensors |= region
        tensors["target"] = self.attack.aim(self._rows(tensors))
        rows = self._rows(tensors)
        with unchanged(x, tensors["eps"]):
            point, state = checked_step(self.attack, self.attack.start(rows), x)
        taken = int(self.from_clean)
        if self.from_clean:
            with unchanged(x, tensors["eps"], tensors["step"]):
                answer = self.asks.at_clean(position, rows)
                point, state = checked_step(self.attack, self.attack.step(rows, answer, state), x)
            tensors["step"] = tensors["step"] + 1
        tensors["point"] = self._projected(rows, point, state)
        # A row goes to the judge when its margin is below its threshold. If the judge disagrees, the threshold drops
        # to that margin.
        zero = torch.zeros_like(attempt, dtype=torch.float32)
        tensors |= {"stopped": torch.zeros_like(attempt, dtype=torch.bool), "margin": zero, "threshold": zero.clone()}
        tensors |= self._kept_at_first(tensors)
        if self.cycles:
            tensors |= cycles.remembered(tensors["point"], tensors["step"])
        if self.steps <= taken:  # it needs no slot, and the judge asks for no more than this
            tensors = {name: tensors[name] for name in ("point", "y", "eps", "step", *_JUDGED, *self._kept_names())}
            state = {}
        shared = {f"state.{name}": value for name, value in state.items()}
        return Bundle(ids, np.full_like(ids, taken), tensors | shared, frozenset(shared))

    def _region(self, x: Tensor, eps: Tensor) -> State:
        """Where rows may lie, as `Rows.region` has it."""
        return self.attack.norm.region(x, eps)

    def _kept_at_first(self, tensors: State) -> State:
        """What is kept of a row's path, before its first answer."""
        if not self.keeps_best:
            return {}
        return {"best": tensors["point"].clone(), "best_margin": torch.zeros_like(tensors["margin"])}

    def _kept_names(self) -> tuple[str, ...]:
        """The names of what is kept of a row's path."""
        return ("best", "best_margin") if self.keeps_best else ()

    def _rows(self, tensors: State, draw: Callable[[], RowNoise] | None = None) -> Rows:
        """The rows as the attack sees them; ``draw`` gives their noise after the start."""
        t, started = tensors, "point" in tensors
        return Rows(
            x=t["x"],
            y=t["y"],
            eps=t["eps"],
            attempt=t["attempt"],
            step=t["step"],
            target=t["target"],
            norm=self.attack.norm,
            region={name: t[name] for name in self.region},
            draw=draw or (lambda: KeyedNoise.of_stream(t["noise"], t["step"] if started else None)),
            clean=lambda: self.asks.clean_logits()[t["position"]],
        )

    def _projected(self, rows: Rows, point: Tensor, state: State) -> Tensor:
        """The nearest points of each row's ball, or of the larger one its attack moves in, and of the box."""
        return rows.project(point, self.attack.radius(rows, state) if self.roams else None)

    def _burst(self) -> None:
        """Some steps of all slots without asking the device anything."""
        longest = int((self.steps - self.slots.step).min())
        count, taken = (min(self.poll, longest) if self.early_stop or self.ends else longest), 0
        exhausted = False
        while taken < count and not exhausted:
            try:
                self._one_step()
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

    def _one_step(self) -> None:
        t, ahead, taken = self.slots.tensors, self.noise_ahead, self.taken
        assert ahead is not None
        rows = self._rows(t, lambda: ahead.after(taken))
        answer, logits = self.asks.at(t["point"], rows)
        with unchanged(t["point"], t["x"], t["eps"], t["step"]):
            remembered = {name[6:]: t[name] for name in self.slots.shared}
            proposal, state = checked_step(self.attack, self.attack.step(rows, answer, remembered), t["x"])
        new = {"point": self._projected(rows, proposal, state)}
        new |= {f"state.{name}": value for name, value in state.items()}
        margin = self._margin(t, logits, answer)
        step = t["step"] + 1
        if (done := self.attack.done(rows, answer, state)) is not None:
            step = step.masked_fill(done, self.steps)
        if self.early_stop:
            stopped = t["stopped"] | (margin < t["threshold"])
            over = stopped | (t["step"] >= self.steps) if self.ends else stopped
            new = {name: hold(over, t[name], value, owned=name == "point") for name, value in new.items()}
            if self.cycles:
                step, seen = cycles.skip_rounds(t, new["point"], step, self.steps, over)
                new |= seen
            new |= {"stopped": stopped, "step": torch.where(over, t["step"], step), "margin": margin}
        elif self.ends:
            over = t["step"] >= self.steps
            new = {name: hold(over, t[name], value) for name, value in (new | {"step": step}).items()}
        else:
            new["step"] = step
        new |= self._kept(t, logits, margin)
        t.update(new)  # only now: if anything above raises, the slots are as they were

    def _margin(self, t: State, logits: Tensor, answer: Answer) -> Tensor:
        """How far the true class leads at the points (N,), with the allowance of `Victim.margin`; ∞ out of the ball."""
        own = type(answer.objective) is Margin and answer.logits is logits  # the attack's loss, computed before
        if own and not self.victim.random:
            margin = self.victim.allowed(-answer.loss, logits)
        else:
            margin = self.victim.margin(logits, t["y"])
        if self.roams:
            inside = self.ledger.norm.size(t["point"] - t["x"]) <= t["eps"].flatten() + ROUNDING
            margin = margin.masked_fill(~inside, torch.inf)
        return margin

    def _kept(self, t: State, logits: Tensor, margin: Tensor) -> State:
        """What is kept of the path, after an answer."""
        if not self.keeps_best:
            return {}
        better = margin < t["best_margin"]
        best = torch.where(better.view(-1, 1, 1, 1), t["point"], t["best"])
        return {"best": best, "best_margin": torch.where(better, margin, t["best_margin"])}

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
            self.unpaid, self.work = 0.0, np.zeros(len(self.eps))

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
        if self.early_stop and self.device.type == "cpu" and not self.ends:  # looking is free: most often none stopped
            if bool(slots.tensors["stopped"].any()):
                stopped = slots.tensors["stopped"].numpy().copy()
                slots.step = slots.tensors["step"].numpy().copy()
        elif self.early_stop:  # the one question to the device: which rows stopped, and after how many steps
            t = slots.tensors
            answer = torch.where(t["stopped"], -1 - t["step"], t["step"]).cpu().numpy()
            stopped = answer < 0
            slots.step = np.where(stopped, -1 - answer, answer)
        elif self.ends:
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
        x = self.targets.pixels(at)
        if self.roams:
            t["point"] = self.ledger.norm.into_ball(x, t["point"], t["eps"])
        verdicts = self.ledger.verdicts(at, t["point"], self.size)
        asked = np.ones(len(bundle), dtype=int)
        if self.keeps_best:
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
        counts = np.bincount(eps_index, weights=asked, minlength=len(self.eps)) * self.ledger.judge.votes
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
