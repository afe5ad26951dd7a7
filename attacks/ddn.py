"""DDN: steps of a fixed length along the gradient, on a sphere that shrinks while the image is misclassified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import LATER, Polished, State, at_least_one
from epsbench.attacks.euclidean import stepped
from epsbench.attacks.losses import LOG_ODDS, Loss
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm, cosine, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

LAST_STEP = 0.01  # the last step's length, as a share of the first one's


@dataclass(frozen=True, kw_only=True)
class DDN(Polished):
    """Decoupled direction and norm (Rony et al., 2019, algorithm 1), without rounding to 256 levels.

    The paper takes 100 steps with γ = 0.05, the first of length 1. By default it takes fewer and larger ones here,
    since the polish at the end finds the nearest point of the boundary that they lead to.

    The gradient is that of the cross-entropy, up to its length, which does not matter here: see
    `epsbench.attacks.losses.LogOdds`.
    """

    version: ClassVar[int] = 4

    goal: ClassVar[str] = "smallest"  # type: ignore[misc]

    norm: Norm = NORMS["l2"]

    steps: int = 20
    """How many gradients are taken."""

    polish: int = field(default=8, metadata=LATER, repr=False)
    """As `Polished.polish`."""

    gamma: float = 0.4
    """By which share the sphere shrinks or grows at each step."""

    step_size: float = 2.0
    """The first step's Euclidean length; the others follow half a cosine wave."""

    loss: Loss = LOG_ODDS
    """The loss that is raised."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps)
        if not self.step_size > 0:
            raise ValueError(f"step_size must be above 0, not {self.step_size}")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must be above 0 and below 1, not {self.gamma}")
        self.requires_norm("l2")

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        """The clean image, and a sphere of radius 1."""
        return rows.x, {"radius": rows.x.new_ones(len(rows.x))}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        assert answer.gradient is not None
        alpha = cosine(rows.step, self.steps, self.step_size, LAST_STEP * self.step_size)
        delta = stepped(answer.x - rows.x, answer.gradient, alpha)  # lines 5 to 7
        change = (answer.wrong.float() * 2 - 1) * self.gamma
        radius = state["radius"] * (1 - change)  # lines 8 to 12: smaller where the point is misclassified
        length = per_row(radius / self.norm.size(delta).clamp_min(1e-12))
        return delta.mul_(length).add_(rows.x), {"radius": radius}  # lines 13 and 14
