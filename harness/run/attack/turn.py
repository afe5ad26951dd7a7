"""What happens to the rows in the slots: their first points, and one turn of all of them.

A turn: ask the victim at each row's point, take the attack's step, project, mark the rows that look fooled, hold the
rows that are over, and keep what is to be kept of each path. Nothing here asks the judge, or moves a row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epsbench.attacks.base import Attack, State
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import Norm
from epsbench.attacks.norms.base import RowNoise, per_row
from epsbench.attacks.rows import Answer, Rows
from epsbench.harness.plan.names.loading import is_users
from epsbench.harness.run.attack import cycles
from epsbench.harness.run.attack.asks import Asks
from epsbench.harness.run.attack.attack_run import AttackRun
from epsbench.harness.run.attack.global_draws import GlobalDraws
from epsbench.harness.run.attack.line_search import TIE, lead_of, lost_ties
from epsbench.harness.run.attack.returned import checked_step
from epsbench.harness.run.attack.schedule import in_ball
from epsbench.harness.run.attack.step import hold, unchanged
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.noise import KeyedNoise

_JUDGED = ("stopped", "margin", "threshold")  # what a row carries to the judge besides its image
_STATE = "state."  # before the names of an attack's own tensors


class Turn:
    """The turns of one attack's rows, whose tensors travel by name, the first axis of each the row."""

    def __init__(self, run: AttackRun, asks: Asks, targets: Targets, norm: Norm) -> None:
        """``norm`` measures whether a point is within ε, whatever the attack makes of its own."""
        self.attack, self.seed, self.early_stop = run.attack, run.seed, run.early_stop
        self.asks, self.targets, self.norm = asks, targets, norm
        self.victim, self.steps = asks.victim, run.attack.budget()
        self.eps = torch.tensor([float(e) for e in run.eps], device=targets.labels.device)
        # Points of an attack that may leave the ball count only where they are inside.
        self.roams = run.attack.roams()
        may_be_done = type(run.attack).done is not Attack.done
        self.cycles = run.early_stop and cycles.watched(run.attack) and not self.victim.random
        self.ends = may_be_done or self.cycles
        # Without early stopping a row may fool on the way and not at its end: its best iterate is kept too.
        self.keeps_best = not run.early_stop and not run.last_only
        # A row may be done after its first answer, and whole batches of rows share that one.
        # A random model's would depend on who asked first.
        self.from_clean = run.attack.starts_clean() and asks.clean.fits() and not may_be_done and not self.victim.random
        self._region_names: tuple[str, ...] = ()
        self.draws = GlobalDraws(watched=is_users(run.attack))

    def first(self, eps_index: Tensor, attempt: Tensor, position: Tensor) -> tuple[State, frozenset[str], int]:
        """Rows (N,) before their first question, or after the shared answer at the clean image.

        Returns their tensors, the names of those that others may refer to as well, and how many answers they have had.
        """
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
        self._region_names = tuple(region)
        tensors |= region
        tensors["target"] = self.attack.aim(self._rows(tensors))
        rows = self._rows(tensors)
        with unchanged(x, tensors["eps"]):
            with self.draws:
                started = self.attack.start(rows)
            point, state = checked_step(self.attack, started, x)
        taken = int(self.from_clean)
        if self.from_clean:
            with unchanged(x, tensors["eps"], tensors["step"]):
                answer = self.asks.at_clean(position, rows)
                with self.draws:
                    stepped = self.attack.step(rows, answer, state)
                point, state = checked_step(self.attack, stepped, x, state)
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
        shared = {f"{_STATE}{name}": value for name, value in state.items()}
        return tensors | shared, frozenset(shared), taken

    def take(self, t: State, shared: frozenset[str], draw: Callable[[], RowNoise]) -> None:
        """One turn of the rows with tensors ``t``, which is changed only when nothing can raise any more.

        ``shared`` are the names as `first` gives them; ``draw`` gives the noise of this step.
        """
        t.update(self.after(t, shared, draw))

    def after(self, t: State, shared: frozenset[str], draw: Callable[[], RowNoise] | None = None) -> State:
        """The tensors that a turn changes, as they are after it; the arguments are those of `take`.

        On CUDA nothing here waits for the device, so that all of it can be one CUDA graph. Without ``draw`` the noise
        is computed anew, from the rows' keys.
        """
        rows = self._rows(t, draw)
        answer, logits = self.asks.at(t["point"], rows)
        with unchanged(t["point"], t["x"], t["eps"], t["step"]):
            remembered = {name.removeprefix(_STATE): t[name] for name in shared}
            with self.draws:
                stepped = self.attack.step(rows, answer, remembered)
            proposal, state = checked_step(self.attack, stepped, t["x"], remembered)
        new = {"point": self._projected(rows, proposal, state)}
        new |= {f"{_STATE}{name}": value for name, value in state.items()}
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
        return new | self._kept(t, logits, margin)

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
            region={name: t[name] for name in self._region_names},
            draw=draw or (lambda: KeyedNoise.of_stream(t["noise"], t["step"] if started else None)),
            clean=lambda: self.asks.clean_logits()[t["position"]],
        )

    def _region(self, x: Tensor, eps: Tensor) -> State:
        """Where rows may lie, as `Rows.region` has it."""
        return self.attack.norm.region(x, eps)

    def _projected(self, rows: Rows, point: Tensor, state: State) -> Tensor:
        """The nearest points of each row's ball, or of the larger one its attack moves in, and of the box."""
        return rows.project(point, self.attack.radius(rows, state) if self.roams else None)

    def _margin(self, t: State, logits: Tensor, answer: Answer) -> Tensor:
        """How far the true class leads at the points (N,), with the allowance of `Victim.margin`; ∞ out of the ball."""
        own = type(answer.objective) is Margin and answer.logits is logits  # the attack's loss, computed before
        lead = -answer.loss if own and not self.victim.random else lead_of(logits, t["y"])
        margin = self._allowed(lead, logits, answer)
        if self.roams:
            inside = in_ball(self.norm.size(t["point"] - t["x"]), t["eps"].flatten())
            margin = margin.masked_fill(~inside, torch.inf)
        return margin

    def _allowed(self, lead: Tensor, logits: Tensor, answer: Answer) -> Tensor:
        """Leads (N,) of the true class, less than 0 where a tie is lost, with the allowance of `Victim.margin`."""
        wrong = answer.wrong if answer.logits is logits else logits.argmax(1) != answer.y
        lead = lead.masked_fill(lost_ties(lead, wrong), TIE)
        return lead if self.asks.exact else self.victim.allowed(lead, logits)

    def _kept_at_first(self, tensors: State) -> State:
        """What is kept of a row's path, before its first answer."""
        if not self.keeps_best:
            return {}
        return {"best": tensors["point"].clone(), "best_margin": torch.zeros_like(tensors["margin"])}

    def _kept_names(self) -> tuple[str, ...]:
        """The names of what is kept of a row's path."""
        return ("best", "best_margin") if self.keeps_best else ()

    def _kept(self, t: State, logits: Tensor, margin: Tensor) -> State:
        """What is kept of the path, after an answer."""
        if not self.keeps_best:
            return {}
        better = margin < t["best_margin"]
        best = torch.where(per_row(better), t["point"], t["best"])
        return {"best": best, "best_margin": torch.where(better, margin, t["best_margin"])}
