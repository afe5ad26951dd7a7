"""Auto-PGD: projected gradient steps with momentum, whose size is halved where the loss does not rise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.apgd_l1 import sparse_start, sparse_step
from epsbench.attacks.base import Aimed, State, at_least_one
from epsbench.attacks.checkpoints import interval
from epsbench.attacks.losses import CROSS_ENTROPY, Loss
from epsbench.attacks.norms.base import choose_rows, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

RISES = 0.75  # ρ: with fewer rising steps between two checkpoints, the step size is too large
MOMENTUM = 0.25


@dataclass(frozen=True, kw_only=True)
class APGD(Aimed):
    """Auto-PGD (Croce and Hein, 2020, algorithm 1), as its authors' code has it.

    The first step is 2ε. At each checkpoint (section 3.2) a row halves its step and goes back to its best point, if
    the loss rose in at most ρ of the steps since the last one, or if neither the step nor the best loss has changed
    since. That code counts the first rise from 0, and looks at the second condition from the second checkpoint on.
    Under L1 the steps are sparse: `epsbench.attacks.apgd_l1`.
    """

    version: ClassVar[int] = 1

    steps: int = 100
    """How many gradients are taken at most."""

    restarts: int = 1
    """How often the attack starts over, at another random point, on an image that withstood."""

    loss: Loss = CROSS_ENTROPY
    """The loss that is raised: ``cross-entropy``, ``dlr``, or another one that needs no target."""

    samples: int = 1
    """Gradients that are averaged at each point (Athalye et al., 2018), against a model that is random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps, restarts=self.restarts, samples=self.samples)
        if not self.norm.shrinks:
            raise ValueError(f"apgd follows lengths, and {self.norm.name} counts; use sigma-zero or fmn")
        if "target" in self.loss.inputs and self.target is None and type(self) is APGD:
            raise ValueError(f"its loss {type(self.loss).__name__} needs a target class; set target, or use apgd-t")

    def roams(self) -> bool:
        return self.norm.name == "l1"

    def radius(self, rows: Rows, state: State) -> Tensor | None:
        return rows.eps * per_row(state["ball"]) if self.norm.name == "l1" else None

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        """A random point of the ball's surface; under L1, of the first stage's ball."""
        if self.norm.name == "l1":
            return sparse_start(self.norm, self.steps, rows)
        x = rows.project(rows.x + self.norm.surface(rows.noise, rows.x, rows.eps))
        return x, first_state(x, rows)

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        if self.norm.name == "l1":
            return sparse_step(self.norm, self.steps, rows, answer, state)
        assert answer.gradient is not None
        first, length = rows.step == 0, interval(self.steps, rows.step)
        better = answer.loss > state["best_loss"]
        best = choose_rows(better, answer.x, state["best"])
        best_gradient = choose_rows(better, answer.gradient, state["best_gradient"])
        best_loss = answer.loss.where(better, state["best_loss"])
        rises = state["rises"] + ((answer.loss > state["loss"]) & ~first)

        check = length > 0
        stuck = ~state["halved"] & (state["checked_loss"] >= best_loss)
        halve = check & ((rises <= RISES * length) | stuck)
        size = choose_rows(halve, state["size"] / 2, state["size"])
        x, gradient = choose_rows(halve, best, answer.x), choose_rows(halve, best_gradient, answer.gradient)

        z = rows.project(x + size * self.norm.direction(gradient))
        momentum = per_row(MOMENTUM * (~first))  # eq. 3; the first step has none
        proposal = x + (1 - momentum) * (z - x) + momentum * (x - state["previous"])
        return proposal, {
            "previous": x, "best": best, "best_gradient": best_gradient, "size": size,
            "loss": answer.loss.masked_fill(first, 0.0), "best_loss": best_loss,
            "checked_loss": best_loss.where(check | first, state["checked_loss"]),
            "rises": rises.masked_fill(check, 0), "halved": halve.where(check, state["halved"]),
        }  # fmt: skip


def first_state(x: Tensor, rows: Rows) -> State:
    """What the attack remembers before its first answer, at the points ``x``."""
    zero, none = x.new_zeros(len(x)), rows.y.new_zeros(len(x))
    return {
        "previous": x, "best": x, "best_gradient": x.new_zeros(x.shape), "size": 2 * rows.eps,
        "loss": zero, "best_loss": zero - float("inf"), "checked_loss": zero, "rises": none,
        "halved": none == 0,
    }  # fmt: skip
