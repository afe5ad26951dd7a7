"""PDPGD: primal steps on the loss, a proximal step on the norm, and a dual variable that balances the two."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.adam import adam, adam_start
from epsbench.attacks.base import Polished, State, at_least_one
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

LAST_PRIMAL, LAST_DUAL = 0.01, 0.1  # the last step sizes, as shares of the first ones
FIRST_RATIO, LEAST_RATIO = 0.01, 1e-6  # of the norm's weight to the loss's
EMA = 0.9  # of the weights


@dataclass(frozen=True, kw_only=True)
class PDPGD(Polished):
    """Primal-dual proximal gradient descent (Matyasko and Chau, 2021, algorithm 2), under L1.

    The primal step is Adam's, so the proximal step has its metric too: under L1 it has a closed form, a threshold for
    every pixel, also within the box.
    """

    version: ClassVar[int] = 3

    goal: ClassVar[str] = "smallest"  # type: ignore[misc]

    loss = Margin()

    norm: Norm = NORMS["l1"]

    steps: int = 500
    """How many gradients are taken."""

    primal_step: float = 0.1
    """The first step size on the image."""

    dual_step: float = 0.1
    """The first step size on the weight of the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps)
        if not (self.primal_step > 0 and self.dual_step > 0):
            raise ValueError("primal_step and dual_step must be above 0")
        self.requires_norm("l1")

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        first = rows.x.new_full((len(rows.x),), -log(FIRST_RATIO))
        return rows.x, adam_start(rows.x) | {"dual": first, "weight": first.sigmoid()}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        assert answer.gradient is not None
        share = rows.step / self.steps
        # The loss is softplus(−margin), so its gradient fades where the image is misclassified.
        descent = -answer.gradient * per_row((-answer.loss).sigmoid())
        mean, scale, moments = adam(descent, state, rows.step)
        alpha = per_row(self.primal_step * LAST_PRIMAL**share) / scale
        moved = (answer.x - alpha * mean).clamp(0.0, 1.0) - rows.x  # eq. 15
        # The proximal step of the norm (eq. 16): what is below the threshold goes back to the clean image.
        weight = per_row((1 - state["weight"]) / state["weight"])
        shrunk = moved.sign() * (moved.abs() - alpha * weight).clamp_min(0.0)

        ascent = self.dual_step * (1 - (1 - LAST_DUAL) * share)
        change = (1 - 2 * answer.wrong.float()) * ascent  # eq. 17: up while the image is classified correctly
        dual = (state["dual"] + change).clamp(log(LEAST_RATIO), -log(LEAST_RATIO))
        average = state["weight"].lerp(dual.sigmoid(), 1 - EMA)
        return rows.x + shrunk, moments | {"dual": dual, "weight": average}
