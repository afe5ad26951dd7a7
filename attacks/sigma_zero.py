"""σ-zero: Adam on the margin and on a smooth count of changed features, with a threshold that adapts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.adam import adam, adam_start
from epsbench.attacks.base import LATER, Polished, State, at_least_one
from epsbench.attacks.flat import lift
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm, cosine, per_row
from epsbench.attacks.norms.linf import LInf
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

LAST_STEP = 0.1  # as a share of the first one
FIRST_THRESHOLD, THRESHOLD_STEP = 0.3, 0.01


@dataclass(frozen=True, kw_only=True)
class SigmaZero(Polished):
    """σ-zero (Cinà et al., 2025, algorithm 1). It counts features: with the norm ``l0-pixels``, whole pixels.

    The loss is max(z_y − max z_i, 0) + ‖δ‖₀ / d, where the count is smooth: Σ δ² / (δ² + σ) (eq. 5 and 6). Of a pixel,
    δ² is the sum over its channels, and d is the number of pixels.

    The paper takes 1,000 steps, the first of length 1. By default there are fewer and smaller ones here, since the
    polish at the end exchanges changes for others that gain more.
    """

    version: ClassVar[int] = 2

    goal: ClassVar[str] = "smallest"  # type: ignore[misc]

    loss = Margin()

    norm: Norm = NORMS["l0"]

    steps: int = 50
    """How many gradients are taken."""

    step_size: float = 0.4
    """How far a feature moves at the first step at most; the others follow half a cosine wave."""

    polish: int = field(default=60, metadata=LATER, repr=False)
    """How many gradients are taken at most to exchange changes at the end; 0: none, for the attack as its paper has
    it."""

    sigma: float = 1e-3
    """How sharp the smooth count is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps)
        if not self.step_size > 0:
            raise ValueError(f"step_size must be above 0, not {self.step_size}")
        if not self.sigma > 0:
            raise ValueError(f"sigma must be above 0, not {self.sigma}")
        self.requires_norm("l0", "l0-pixels")

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        threshold = rows.x.new_full((len(rows.x),), FIRST_THRESHOLD)
        return rows.x, adam_start(rows.x) | {"threshold": threshold, "lift": threshold * 0 + 1}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        assert answer.gradient is not None
        delta = answer.x - rows.x
        squares = delta**2 if self.norm.name == "l0" else (delta**2).sum(1, keepdim=True)  # of what counts as one
        count = 2 * delta * self.sigma / (squares + self.sigma) ** 2 / squares[0].numel()
        lifted = lift(rows, answer, state["lift"])
        descent = count - answer.gradient * per_row(lifted * ~answer.wrong)  # lines 3 and 4
        descent = descent / per_row(LInf().size(descent)).clamp_min(1e-12)  # line 5
        mean, scale, moments = adam(descent, state, rows.step)
        eta = cosine((rows.step - 1).clamp_min(0), self.steps, self.step_size, LAST_STEP * self.step_size)
        moved = (answer.x - per_row(eta) * mean / scale).clamp(0.0, 1.0) - rows.x  # lines 6 and 7

        change = THRESHOLD_STEP * cosine(rows.step, self.steps, self.step_size, LAST_STEP * self.step_size)
        threshold = (state["threshold"] + change * (answer.wrong.float() * 2 - 1)).clamp(0.0, 1.0)  # lines 9 to 12
        large = _largest_change(self.norm, moved) >= per_row(threshold)
        return rows.x + moved * large, moments | {"threshold": threshold, "lift": lifted}  # line 8


def _largest_change(norm: Norm, delta: Tensor) -> Tensor:
    """The largest change of what counts as one: of a feature, (N, C, H, W), or of a pixel, (N, 1, H, W)."""
    return delta.abs().amax(1, keepdim=True) if norm.name == "l0-pixels" else delta.abs()
