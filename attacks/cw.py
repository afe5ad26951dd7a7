"""Carlini and Wagner's L2 attack: Adam in tanh space, and a binary search for the weight of the margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.adam import adam, adam_start
from epsbench.attacks.base import Polished, State, at_least_one
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

NEAR_ONE = 0.999999  # where the clean image is pulled in from the faces of the box, whose tanh is infinite
GAIN, CHECKS = 0.9999, 10  # a search ends early where a tenth of its steps has gained less than a 0.01 %


@dataclass(frozen=True, kw_only=True)
class CW(Polished):
    """The L2 attack of Carlini and Wagner (2017, section V-A), with κ = 0.

    Minimised is ‖δ‖² + c · max(z_y − max z_i, 0) over w, where x + δ = (tanh w + 1) / 2. The weight c rises tenfold
    until a search succeeds, and is halved between the last that failed and the last that succeeded. Every image has
    its own c and its own early end.
    """

    version: ClassVar[int] = 3

    goal: ClassVar[str] = "smallest"  # type: ignore[misc]

    loss = Margin()

    norm: Norm = NORMS["l2"]

    steps: int = 10_000
    """How many gradients one search takes at most."""

    searches: int = 9
    """How many weights c are tried."""

    learning_rate: float = 0.01

    first_weight: float = 1e-3
    """The first c."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps, searches=self.searches)
        if not (self.learning_rate > 0 and self.first_weight > 0):
            raise ValueError("learning_rate and first_weight must be above 0")
        self.requires_norm("l2")

    def budget(self) -> int:
        return self.steps * self.searches

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        w, none = _to_tanh(rows.x), rows.x.new_zeros(len(rows.x))
        return _from_tanh(w), adam_start(w) | {
            "w": w, "c": none + self.first_weight, "low": none, "high": none + float("inf"), "fooled": none > 0,
            "at": rows.y.new_zeros(len(rows.y)), "search": rows.y.new_zeros(len(rows.y)),
            "checked": none + float("inf"),
        }  # fmt: skip

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        assert answer.gradient is not None
        delta, c = answer.x - rows.x, state["c"]
        rising = per_row(c * (answer.loss < 0))
        gradient = (2 * delta - rising * answer.gradient) * 2 * answer.x * (1 - answer.x)  # dx/dw = 2x(1 − x)
        mean, scale, moments = adam(gradient, state, state["at"])
        w = state["w"] - self.learning_rate * mean / scale
        fooled, at = state["fooled"] | answer.wrong, state["at"] + 1

        # The end of a search: after all steps, or where a tenth of them has gained too little.
        value = (delta**2).flatten(1).sum(1) + c * (-answer.loss).clamp_min(0.0)
        check = at % max(1, self.steps // CHECKS) == 0
        over = (at >= self.steps) | (check & (value > GAIN * state["checked"]))
        low, high = c.where(over & ~fooled, state["low"]), c.where(over & fooled, state["high"])
        following = ((low + high) / 2).where(high.isfinite(), 10 * c)
        again = per_row(over)
        fresh = _to_tanh(rows.x)
        w = fresh.where(again, w)
        return _from_tanh(w), {
            "w": w, "c": following.where(over, c), "low": low, "high": high, "fooled": fooled & ~over,
            "at": at.masked_fill(over, 0), "search": state["search"] + over,
            "checked": value.where(check, state["checked"]).masked_fill(over, float("inf")),
            **{name: moment.masked_fill(again, 0.0) for name, moment in moments.items()},
        }  # fmt: skip

    def done(self, rows: Rows, answer: Answer, state: State) -> Tensor:
        return state["search"] >= self.searches


def _to_tanh(x: Tensor) -> Tensor:
    return ((2 * x - 1) * NEAR_ONE).atanh()


def _from_tanh(w: Tensor) -> Tensor:
    return (w.tanh() + 1) / 2
