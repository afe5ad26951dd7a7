"""DeepFool: the nearest linearised boundary, again and again, until the image is misclassified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import LATER, Polished, State, at_least_one
from epsbench.attacks.fab import distances, nearest_boundary
from epsbench.attacks.losses import LogitDifference
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

BEYOND = 1e-4  # of the margin, beyond the boundary, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class DeepFool(Polished):
    """DeepFool (Moosavi-Dezfooli et al., 2016, algorithm 2), under L2 and L∞. An answer costs a gradient a wrong class.

    The class is chosen as in the paper, which has no box. A step is the least one within the box that reaches the
    linearised boundary. The paper's own step, cut off at the box, does not reach it where many pixels are at their
    faces, as in digits, and may never get across. A row whose step moves nothing ends: every further one would be the
    same.
    """

    version: ClassVar[int] = 5

    query: ClassVar[str] = "jacobian"

    goal: ClassVar[str] = "smallest"  # type: ignore[misc]

    loss = LogitDifference()

    steps: int = 50
    """How many steps are taken at most."""

    overshoot: float = 0.02
    """By which share every step is lengthened, to get beyond the boundary."""

    polish: int = field(default=8, metadata=LATER, repr=False)
    """As `Polished.polish`."""

    classes: int = field(default=10, metadata=LATER, repr=False)
    """How many classes a step looks at, the true one among them: those with the highest logits. The authors' code has
    ten as well, because a gradient of each of a thousand classes takes too long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps)
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, the true one and another, not {self.classes}")
        if not self.overshoot >= 0:
            raise ValueError(f"overshoot must be at least 0, not {self.overshoot}")
        self.requires_norm("linf", "l2")

    def candidates(self, classes: int) -> int:
        return min(self.classes, classes) - 1

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        return rows.x, {"stays": rows.y < 0}

    def score(self, values: Tensor, gradients: Tensor) -> Tensor:
        return distances(self.norm, values, gradients)  # line 8

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        w, f = nearest_boundary(answer)
        move = self.norm.to_plane(answer.x, w, f - BEYOND)  # line 9
        proposal = rows.project(answer.x + (1 + self.overshoot) * move)  # line 10
        stays = (proposal == answer.x).flatten(1).all(1)
        return proposal, {"stays": stays}

    def done(self, rows: Rows, answer: Answer, state: State) -> Tensor:
        return answer.wrong | state["stays"]  # line 4; the next step depends on the point alone
