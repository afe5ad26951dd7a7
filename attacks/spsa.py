"""SPSA: projected steps along a gradient that is estimated from scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import Aimed, State, at_least_one
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms.base import movable, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SPSA(Aimed):
    """SPSA (Uesato et al., 2018, algorithm 1): ĝ = mean of (f(x + δv) − f(x − δv)) v / 2δ over random signs v.

    A round is one query at the iterate, two for every pair of samples, and then one projected step along ĝ's direction
    under the norm, in place of the paper's Adam. Under L1 that is the steepest pixel, so those that have no way to go
    within the box are left out. Samples may lie outside the ball; only points inside count.
    """

    version: ClassVar[int] = 2

    query: ClassVar[str] = "logits"

    loss = Margin()

    steps: int = 5_000
    """How many queries are made at most."""

    restarts: int = 1
    """How often it starts over, with other random numbers, on an image that withstood."""

    pairs: int = 32
    """How many pairs of samples an estimate averages."""

    delta: float = 0.01
    """δ: how far a sample moves every pixel."""

    relative_step_size: float = 0.1
    """The size of a step, in units of ε."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps, restarts=self.restarts, pairs=self.pairs)
        if not (self.delta > 0 and self.relative_step_size > 0):
            raise ValueError("delta and relative_step_size must be above 0")
        if self.steps <= 2 * self.pairs:
            raise ValueError(
                f"steps must be at least {2 * self.pairs + 1}, the queries of one estimate (2 · pairs + 1), not "
                f"{self.steps}: no step would be taken; give fewer pairs"
            )
        self.requires_norm("linf", "l2", "l1")

    def radius(self, rows: Rows, state: State) -> Tensor:
        return rows.eps + float("inf")

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        zero = rows.x.new_zeros(rows.x.shape)
        return rows.x, {"here": rows.x, "signs": zero, "estimate": zero, "above": zero.flatten(1)[:, 0]}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        here, signs = state["here"], state["signs"]
        turn = rows.step % (2 * self.pairs + 1)  # 0: at the iterate; odd: above it; even: below
        below = (turn > 0) & (turn % 2 == 0)
        slope = (state["above"] - answer.loss) / (2 * self.delta) * below
        estimate = state["estimate"] + per_row(slope) * signs  # line 6

        last, end = turn == 2 * self.pairs, rows.step + 1 >= self.steps
        direction = self.norm.direction(movable(here, estimate))
        moved = rows.project(here + self.relative_step_size * rows.eps * direction)  # line 8
        here = moved.where(per_row(last), here)
        drawn = (rows.noise.uniform(*here.shape[1:]) < 0.5).float() * 2 - 1  # line 4
        up = (turn % 2 == 0) & ~last
        signs = drawn.where(per_row(up), signs)
        way = (up.float() - (turn % 2 == 1).float()) * (~last & ~end)
        return here + per_row(way) * self.delta * signs, {
            "here": here, "signs": signs, "estimate": estimate * per_row(~last),
            "above": answer.loss.where(turn % 2 == 1, state["above"]),
        }  # fmt: skip
