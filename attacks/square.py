"""The square attack: random search by scores alone, one square window a query."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.base import Aimed, State, at_least_one
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms.base import Norm, choose, per_row
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

HALVINGS = (10, 50, 200, 500, 1_000, 2_000, 4_000, 6_000, 8_000)  # queries after which the window's area is halved


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
            delta = _of_size(self.norm, _tiles(rows, self.norm.name == "l2")) * rows.eps
        return x + delta, {"best": x, "best_loss": zero - float("inf")}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        better = (answer.loss > state["best_loss"]) | answer.wrong
        best = choose(per_row(better), answer.x, state["best"])
        best_loss = answer.loss.where(better, state["best_loss"])
        propose = self._window_linf if self.norm.name == "linf" else self._windows_l2
        return propose(rows, best), {"best": best, "best_loss": best_loss}

    def _window_linf(self, rows: Rows, best: Tensor) -> Tensor:
        """Algorithm 2: ±ε in one window, a sign a channel."""
        channels, height, width = best.shape[1:]
        random = rows.noise.uniform(2 + channels)
        signs = _signs(random[:, 2:]).view(-1, channels, 1, 1)
        window = _square(self.p, height, width, self._halvings(rows.step), random[:, :2])
        return choose(window, rows.x + rows.eps * signs, best)

    def _windows_l2(self, rows: Rows, best: Tensor) -> Tensor:
        """Algorithm 3: the mass of a second window moves into the first, as a bump of random sign a channel."""
        channels, height, width = best.shape[1:]
        euclidean = self.norm.name == "l2"
        power = 2 if euclidean else 1
        sides, bumps = _bumps(self.p, height, width, best.device, euclidean)
        level = self._halvings(rows.step)
        side, delta = sides[level], best - rows.x
        random = rows.noise.uniform(5 + channels)
        corner, turned, signs = random[:, :4], random[:, 4:5] > 0.5, _signs(random[:, 5:]).view(-1, channels, 1, 1)
        first, second = (_window(corner[:, k : k + 2], side, best) for k in (0, 2))
        total, either = (self.norm.size(each) ** power for each in (delta, delta * first.maximum(second)))
        # What the first window of each channel may spend: its share of what is left of ε, and of both windows.
        spent = either if euclidean else either / channels
        free = (rows.eps.flatten() ** power - total).clamp_min(0) / channels + spent

        bump = _placed(bumps[level], corner[:, :2], side, best, turned)
        old = delta * first
        new = bump * signs + old / _by_channel(old, power)
        new = new / _by_channel(new, power) * per_row(free ** (1 / power))
        moved = choose(first, new, delta * (1 - second))
        return rows.x + _of_size(self.norm, moved) * rows.eps

    def _halvings(self, step: Tensor) -> Tensor:
        import torch

        return torch.bucketize(step, _halvings(step.device))


@cache
def _halvings(device: Any) -> Tensor:
    import torch

    return torch.tensor(HALVINGS, device=device)


@cache
def _lines(p: float, height: int, width: int, device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of every level of `HALVINGS`: how many places a window has, down and across, (L, 2); and, by level and place,
    1 in the window's lines and 0 elsewhere: of its rows (L, H, H), of its columns (L, W, W).
    """
    import torch

    share = p * 0.5 ** torch.arange(len(HALVINGS) + 1, device=device).float()
    side = (share * (height * width)).sqrt().round().clamp(1, min(height, width))
    places = torch.stack([height - side, width - side], 1)
    down, across = (_inside(side, length) for length in (height, width))
    return places, down, across


def _inside(side: Tensor, length: int) -> Tensor:
    """By window side (L,) and place: 1 in the window, 0 elsewhere, (L, length, length)."""
    at = (side.new_ones(length).cumsum(0) - 1).view(1, 1, -1)
    place = at.view(1, -1, 1)
    return ((at >= place) & (at < place + side.view(-1, 1, 1))).float()


def _square(p: float, height: int, width: int, level: Tensor, corner: Tensor) -> Tensor:
    """As `_window`, for the windows of L∞ at these levels of `HALVINGS` (N,)."""
    places, down, across = _lines(p, height, width, level.device)
    place = (corner * places[level]).long()
    rows, columns = down[level, place[:, 0]], across[level, place[:, 1]]
    return rows.view(-1, 1, height, 1) * columns.view(-1, 1, 1, width)


def _signs(uniform: Tensor) -> Tensor:
    return (uniform < 0.5).float() * 2 - 1


def _by_channel(delta: Tensor, power: int) -> Tensor:
    """The length of every channel, (N, C, 1, 1), Euclidean or (``power`` 1) L1; at least a tiny number."""
    return (delta.abs() ** power).sum((2, 3), keepdim=True) ** (1 / power) + 1e-12


def _of_size(norm: Norm, delta: Tensor) -> Tensor:
    """The change scaled to size 1."""
    return norm.direction(delta) if norm.name == "l2" else delta / per_row(norm.size(delta)).clamp_min(1e-12)


def _window(corner: Tensor, side: Tensor, x: Tensor) -> Tensor:
    """1 in each row's window and 0 elsewhere, (N, 1, H, W): ``corner`` (N, 2) is its place as a share of all places."""
    down, across = _offsets(corner, side, x)
    down, across = ((at >= 0) & (at < per_row(side)) for at in (down, across))
    return down.float() * across.float()


def _offsets(corner: Tensor, side: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """How far each pixel is below and right of the window's corner: (N, 1, H, 1) and (N, 1, 1, W)."""
    height, width = x.shape[2:]
    top = (corner[:, 0] * (height - side)).long()
    left = (corner[:, 1] * (width - side)).long()
    rows, columns = top.new_ones(height).cumsum(0) - 1, top.new_ones(width).cumsum(0) - 1
    return rows.view(1, 1, -1, 1) - per_row(top), columns.view(1, 1, 1, -1) - per_row(left)


def _placed(bump: Tensor, corner: Tensor, side: Tensor, x: Tensor, turned: Tensor) -> Tensor:
    """Each row's bump (N, M, M) at its window, (N, 1, H, W), 0 elsewhere; transposed where ``turned`` (N, 1)."""
    down, across = _offsets(corner, side, x)
    inside = _window(corner, side, x)
    bump = bump.transpose(1, 2).where(turned.view(-1, 1, 1), bump)
    last = bump.shape[1] - 1
    index = down.clamp(0, last) * bump.shape[1] + across.clamp(0, last)
    return bump.flatten(1).gather(1, index.flatten(1)).view_as(inside) * inside


def _tiles(rows: Rows, euclidean: bool) -> Tensor:
    """A grid of 5 by 5 bumps of random sign in each channel (section 4.4), not normalised."""
    x = rows.x
    channels, height, width = x.shape[1:]
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    top, left = (height - down * side) // 2, (width - across * side) // 2
    bump = x.new_tensor(_bump(side, euclidean)).repeat(down, across)
    signs = _signs(rows.noise.uniform(channels, down, across)).repeat_interleave(side, 2).repeat_interleave(side, 3)
    delta = x.new_zeros(x.shape)
    delta[:, :, top : top + down * side, left : left + across * side] = bump * signs
    return delta


@cache
def _bumps(p: float, height: int, width: int, device: Any, euclidean: bool = True) -> tuple[Tensor, Tensor]:
    """Of every level of `HALVINGS`: the side of the window, (L,), and its bump, (L, M, M), with 0 beyond its side."""
    import torch

    largest = min(height, width)
    largest -= 1 - largest % 2
    sides = [
        min(max(round(sqrt(p * 0.5**level * height * width)), 3) | 1, largest) for level in range(len(HALVINGS) + 1)
    ]
    table = torch.zeros(len(sides), max(sides), max(sides))
    for level, side in enumerate(sides):
        table[level, :side, :side] = torch.tensor(_bump(side, euclidean))
    return torch.tensor(sides, device=device), table.to(device)


@cache
def _bump(side: int, euclidean: bool = True) -> list[list[float]]:
    """A bump up beside a bump down, of length 1, (side, side): the η of section 4.4, with a profile of 1/r².

    Not ``euclidean``: of L1 length 1, with a profile of 1/r⁴ (Croce and Hein, 2021, appendix).
    """
    upper = _rectangles(side // 2, side, euclidean)
    lower = _rectangles(side - side // 2, side, euclidean)
    whole = [*upper, *([-value for value in row] for row in lower)]
    length = _length(whole, euclidean)
    return [[value / length for value in row] for row in whole]


def _length(values: list[list[float]], euclidean: bool) -> float:
    flat = [abs(value) for row in values for value in row]
    return sqrt(sum(value * value for value in flat)) if euclidean else sum(flat)


def _rectangles(height: int, width: int, euclidean: bool) -> list[list[float]]:
    """Nested rectangles around the middle whose heights add up as 1/r² or 1/r⁴, of length 1, (height, width)."""
    total = [[0.0] * width for _ in range(height)]
    top, left = height // 2, width // 2
    for r in range(max(top, left) + 1):
        for i in range(max(0, top - r), min(top + r + 1, height)):
            for j in range(max(0, left - r), min(left + r + 1, width)):
                total[i][j] += 1 / (r + 1) ** (2 if euclidean else 4)
    length = _length(total, euclidean) or 1.0
    return [[value / length for value in row] for row in total]
