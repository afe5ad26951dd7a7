"""The square attack: random search by scores alone, one square window a query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import Aimed, State, at_least_one
from epsbench.attacks.bumps import bumps, grid, placed, tiles
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms.base import Norm, choose, choose_rows, laid_out_as, per_row
from epsbench.attacks.rows import Answer, Rows
from epsbench.attacks.windows import level, square_window, window

if TYPE_CHECKING:
    from torch import Tensor


BEYOND = 2.0  # in pixel units: from anywhere in the box to outside of it, and so of any ball


@dataclass(frozen=True, kw_only=True)
class Square(Aimed):
    """Square attack (Andriushchenko et al., 2020, algorithms 1 to 3), with the schedule of AutoAttack.

    Each image draws its own windows and signs. A window that is smaller than the image never covers the last row and
    column, as in the reference.
    """

    version: ClassVar[int] = 2

    query: ClassVar[str] = "logits"

    loss = Margin()

    steps: int = 5_000
    """How many queries are made at most."""

    restarts: int = 1
    """How often it starts over, with other random numbers, on an image that withstood."""

    p: float = 0.8
    """The first window's share of the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(steps=self.steps, restarts=self.restarts)
        if not 0 < self.p <= 1:
            raise ValueError(f"p must be above 0 and at most 1, not {self.p}")
        self.requires_norm("linf", "l2", "l1")

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        """Vertical stripes of random sign under L∞, a grid of bumps of random sign under L2 and L1."""
        x, zero = rows.x, rows.x.new_zeros(len(rows.x))
        if self.norm.name == "linf":
            delta = _signs(rows.noise.uniform(x.shape[1], 1, x.shape[3])).expand_as(x) * rows.eps
        else:
            signs = _signs(rows.noise.uniform(x.shape[1], *grid(*x.shape[2:])[1:]))
            delta = _of_size(self.norm, tiles(x, signs, self.norm.name == "l2")) * rows.eps
        return x + delta, {"best": x, "best_loss": zero - float("inf")}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        better = (answer.loss > state["best_loss"]) | answer.wrong
        best = choose_rows(better, answer.x, state["best"])
        best_loss = answer.loss.where(better, state["best_loss"])
        propose = self._window_linf if self.norm.name == "linf" else self._windows_l2
        return propose(rows, best), {"best": best, "best_loss": best_loss}

    def _window_linf(self, rows: Rows, best: Tensor) -> Tensor:
        """Algorithm 2: ±ε in one window, a sign a channel. It goes beyond the box, so the projection leaves ±ε."""
        channels, height, width = best.shape[1:]
        random = rows.noise.uniform(2 + channels)
        signs = _signs(random[:, 2:]).view(-1, channels, 1, 1)
        down, across = square_window(self.p, height, width, level(rows.step), random[:, :2])
        return best.addcmul(down, laid_out_as(best, across * signs), value=BEYOND)

    def _windows_l2(self, rows: Rows, best: Tensor) -> Tensor:
        """Algorithm 3: the mass of a second window moves into the first, as a bump of random sign a channel."""
        channels, height, width = best.shape[1:]
        euclidean = self.norm.name == "l2"
        power = 2 if euclidean else 1
        sides, shapes = bumps(self.p, height, width, best.device, euclidean)
        halved = level(rows.step)
        side, delta = sides[halved], best - rows.x
        random = rows.noise.uniform(5 + channels)
        corner, turned, signs = random[:, :4], random[:, 4:5] > 0.5, _signs(random[:, 5:]).view(-1, channels, 1, 1)
        first, second = (window(corner[:, k : k + 2], side, best) for k in (0, 2))
        total, either = (self.norm.size(each) ** power for each in (delta, delta * first.maximum(second)))
        # What the first window of each channel may spend: its share of what is left of ε, and of both windows.
        spent = either if euclidean else either / channels
        free = (rows.eps.flatten() ** power - total).clamp_min(0) / channels + spent

        bump = placed(shapes[halved], corner[:, :2], side, best, turned)
        old = delta * first
        new = bump * signs + old / _by_channel(old, power)
        if min(height, width) < 3:  # windows of one pixel: what was there may be the bump's opposite, and leave nothing
            new = new + bump * signs * (_by_channel(new, power) < 0.5)
        new = new / _by_channel(new, power) * per_row(free ** (1 / power))
        moved = choose(first, new, delta * (1 - second))
        return rows.x + _of_size(self.norm, moved) * rows.eps


def _signs(uniform: Tensor) -> Tensor:
    return (uniform < 0.5).float() * 2 - 1


def _by_channel(delta: Tensor, power: int) -> Tensor:
    """The length of every channel, (N, C, 1, 1), Euclidean or (``power`` 1) L1; at least a tiny number."""
    return (delta.abs() ** power).sum((2, 3), keepdim=True) ** (1 / power) + 1e-12


def _of_size(norm: Norm, delta: Tensor) -> Tensor:
    """The change scaled to size 1."""
    return norm.direction(delta) if norm.name == "l2" else delta / per_row(norm.size(delta)).clamp_min(1e-12)
