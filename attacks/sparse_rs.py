"""Sparse-RS: random search over which few pixels to change, by scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import Aimed, State, at_least_one
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms.base import per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

# After how many of 10,000 queries the share of moved pixels falls to 1/n of the first (appendix A).
SCHEDULE = ((0, 2), (50, 4), (200, 5), (500, 6), (1_000, 8), (2_000, 10), (4_000, 12), (6_000, 15), (8_000, 20))
PIXELS = "l0-pixels"


@dataclass(frozen=True, kw_only=True)
class SparseRS(Aimed):
    """Sparse-RS (Croce et al., 2022, algorithm 1 and section 4) on k pixels, k = ε under the norm ``l0-pixels``.

    It starts at k random pixels, each at a random corner of the colour cube. A query moves ⌈α k⌉ of them elsewhere, to
    new corners, and is kept where the margin does not fall. Where k is nearly all pixels, those that have nowhere to
    move to get new corners where they are.
    """

    version: ClassVar[int] = 1

    query: ClassVar[str] = "logits"

    loss = Margin()

    steps: int = 10_000
    """How many queries are made at most."""

    restarts: int = 1
    """How often it starts over, with other random numbers, on an image that withstood."""

    alpha: float = 0.3
    """α₀: the share of the pixels that the first queries move, before it is halved."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps, restarts=self.restarts)
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1, not {self.alpha}")

    def check(self, classes: int) -> None:
        super().check(classes)
        if self.norm.name != PIXELS:
            raise ValueError(f'sparse-rs changes whole pixels; set norm = "{PIXELS}", and ε to the number of pixels')

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        height, width = rows.x.shape[2:]
        k = rows.eps.flatten()[:, None]
        chosen = _ranks(rows.noise.uniform(height * width)) < k
        chosen = chosen.view(-1, 1, height, width).float()
        point = rows.x.lerp(_corners(rows), chosen)
        zero = rows.eps.flatten() * 0
        return point, {"best": point, "chosen": chosen, "asked": chosen, "best_loss": zero - float("inf")}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        better = (answer.loss >= state["best_loss"]) | answer.wrong
        best = answer.x.where(per_row(better), state["best"])
        chosen = state["asked"].where(per_row(better), state["chosen"])
        best_loss = answer.loss.where(better, state["best_loss"])

        changed, moved = self._moved(rows)
        height, width = chosen.shape[2:]
        draws = rows.noise.uniform(2, height * width)
        flat = chosen.flatten(1)
        rank = _ranks(draws[:, 0] + (1 - flat))  # of the chosen pixels
        leaves = (rank < moved[:, None]).view_as(chosen)
        redrawn = ((rank >= moved[:, None]) & (rank < changed[:, None])).view_as(chosen)
        enters = (_ranks(draws[:, 1] + flat) < moved[:, None]).view_as(chosen)  # of the others
        point = rows.x.where(leaves, best)
        point = _corners(rows).where(enters | redrawn, point)
        return point, {
            "best": best, "chosen": chosen, "asked": chosen * ~leaves + enters.float() * (1 - chosen),
            "best_loss": best_loss,
        }  # fmt: skip

    def _moved(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """How many pixels the next query changes, at least one, and how many of them it moves, both (N,).

        It moves no more than there are others to move to. The rest get new corners where they are.
        """
        share = rows.eps.flatten() * 0 + self.alpha
        for after, divisor in SCHEDULE:
            share = (share * 0 + self.alpha / divisor).where(rows.step + 1 > after * self.steps / 10_000, share)
        k, pixels = rows.eps.flatten().floor(), rows.x.shape[2] * rows.x.shape[3]
        changed = (share * k - 1e-6).ceil().clamp_min(1).minimum(k)
        return changed, changed.minimum(pixels - k)


def _ranks(values: Tensor) -> Tensor:
    """The place of every value (N, M) among those of its row in ascending order, from 0."""
    return values.argsort(1).argsort(1)


def _corners(rows: Rows) -> Tensor:
    """Random corners of the colour cube for every pixel, (N, C, H, W)."""
    return (rows.noise.uniform(*rows.x.shape[1:]) < 0.5).float()
