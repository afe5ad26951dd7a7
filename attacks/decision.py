"""What attacks by decisions alone have in common: a start that is misclassified, found by random images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import LATER, Attack, State, at_least_one, require_goal
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Decisions(Attack):
    """An attack that uses nothing but whether a point is misclassified, and moves from far away towards the image.

    Its points may lie outside the ball; only those inside count. A row for which no random image is misclassified goes
    on drawing until its queries are spent, and stops no other row.
    """

    query: ClassVar[str] = "logits"

    steps: int = 25_000
    """How many queries are made at most."""

    restarts: int = 1
    """How often it starts over, with other random numbers, on an image that withstood."""

    goal: str = field(default="fool", metadata=LATER, repr=False)
    """``smallest``: the distances themselves are recorded, and answer every ε."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_goal(self.goal)
        at_least_one(steps=self.steps, restarts=self.restarts)
        self.requires_norm("linf", "l2")

    def radius(self, rows: Rows, state: State) -> Tensor:
        return rows.eps + float("inf")

    def random_image(self, rows: Rows) -> Tensor:
        """Uniform pixels, (N, C, H, W)."""
        return rows.noise.uniform(*rows.x.shape[1:])


def pick(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """``yes`` in these rows (N,), ``no`` elsewhere; of one number a row or of images."""
    return yes.where(per_row(rows) if yes.dim() > 1 else rows, no)
