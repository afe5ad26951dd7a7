"""Carlini and Wagner's L2 attack: Adam in tanh space, and a binary search for the weight of the margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.adam import adam, adam_start
from epsbench.attacks.base import Polished, State, at_least_one
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm, choose_rows, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

NEAR_ONE = 0.999999  # where the clean image is pulled in from the faces of the box, whose tanh is infinite
LEAST = 1e-20  # of a squared slope that is divided by
LEAST_WAY = 1e-5  # to the boundary, for the first weight: that of an image whose logits tie would be 0, and stay so
GAIN, CHECKS = 0.9999, 10  # a search ends early where a tenth of its steps has gained less than a 0.01 %


@dataclass(frozen=True, kw_only=True)
class CW(Polished):
    """The L2 attack of Carlini and Wagner (2017, section V-A), with κ = 0.

    Minimised is ‖δ‖² + c · max(z_y − max z_i, 0) over w, where x + δ = (tanh w + 1) / 2. The weight c rises tenfold
    until a search succeeds, and is halved between the last that failed and the last that succeeded. Every image has
    its own c and its own early end.

    The paper takes 9 searches of 10,000 steps with a learning rate of 0.01, and the first c is 0.001. By default there
    are fewer and larger steps here, since the polish at the end finds the nearest point of the boundary that they lead
    to. And they do not begin at the image again and again: see `first_weight`.
    """

    version: ClassVar[int] = 3

    goal: ClassVar[str] = "smallest"  # type: ignore[misc]

    loss = Margin()

    norm: Norm = NORMS["l2"]

    steps: int = 20
    """How many gradients one search takes at most."""

    searches: int = 6
    """How many weights c are tried."""

    learning_rate: float = 0.4

    first_weight: float | None = None
    """The first c; every search then begins at the image, as in the paper. None: the c with which the sum would be
    least at the boundary if the margin were linear, 2m / ‖g‖² for the margin m at the image and its gradient g. A
    search then goes on where the one before ended; only Adam begins anew."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps, searches=self.searches)
        if not (self.learning_rate > 0 and (self.first_weight is None or self.first_weight > 0)):
            raise ValueError("learning_rate and first_weight must be above 0")
        self.requires_norm("l2")

    def budget(self) -> int:
        return self.steps * self.searches

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        w, none = _to_tanh(rows.x), rows.x.new_zeros(len(rows.x))
        return _from_tanh(w), adam_start(w) | {
            "w": w, "c": none + (self.first_weight or 0.0), "low": none, "high": none + float("inf"),
            "fooled": none > 0, "at": rows.y.new_zeros(len(rows.y)), "search": rows.y.new_zeros(len(rows.y)),
            "checked": none + float("inf"),
        }  # fmt: skip

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        assert answer.gradient is not None
        delta, c = answer.x - rows.x, self._weight(rows, answer, state["c"])
        rising = per_row(c * ~answer.wrong)
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
        if self.first_weight is not None:  # every search begins at the image
            w = choose_rows(over, _to_tanh(rows.x), w)
        return _from_tanh(w), {
            "w": w, "c": following.where(over, c), "low": low, "high": high, "fooled": fooled & ~over,
            "at": at.masked_fill(over, 0), "search": state["search"] + over,
            "checked": value.where(check, state["checked"]).masked_fill(over, float("inf")),
            **{name: moment.masked_fill(per_row(over), 0.0) for name, moment in moments.items()},
        }  # fmt: skip

    def _weight(self, rows: Rows, answer: Answer, c: Tensor) -> Tensor:
        """The c of the search, (N,): the first is known after the first answer."""
        if self.first_weight is not None:
            return c
        assert answer.gradient is not None
        steepness = answer.gradient.square().flatten(1).sum(1)
        margin = answer.loss.abs().maximum(LEAST_WAY * steepness.sqrt())
        return (2 * margin / steepness.clamp_min(LEAST)).where(rows.step == 0, c)

    def done(self, rows: Rows, answer: Answer, state: State) -> Tensor:
        return state["search"] >= self.searches


def _to_tanh(x: Tensor) -> Tensor:
    return ((2 * x - 1) * NEAR_ONE).atanh()


def _from_tanh(w: Tensor) -> Tensor:
    return (w.tanh() + 1) / 2
