"""The bumps that the square attack puts into its windows under L2 and L1."""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import TYPE_CHECKING, Any

from epsbench.attacks.windows import odd_sides, offsets, window

if TYPE_CHECKING:
    from torch import Tensor


def tiles(x: Tensor, signs: Tensor, euclidean: bool) -> Tensor:
    """A grid of bumps in each channel (section 4.4), as large as ``x`` (N, C, H, W) and not normalised.

    ``signs`` (N, C, down, across), of the bumps: see `grid`.
    """
    height, width = x.shape[2:]
    side, down, across = grid(height, width)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    pattern = x.new_tensor(bump(side, euclidean)).repeat(down, across)
    signs = signs.repeat_interleave(side, 2).repeat_interleave(side, 3)
    delta = x.new_zeros(x.shape)
    delta[:, :, top : top + down * side, left : left + across * side] = pattern * signs
    return delta


def grid(height: int, width: int) -> tuple[int, int, int]:
    """The side of a tile, and how many tiles there are down and across: 5 along the shorter side."""
    side = max(1, min(height, width) // 5)
    return side, height // side, width // side


def placed(each: Tensor, corner: Tensor, side: Tensor, x: Tensor, turned: Tensor) -> Tensor:
    """Each row's bump (N, M, M) at its window, (N, 1, H, W), 0 elsewhere; transposed where ``turned`` (N, 1)."""
    down, across = offsets(corner, side, x)
    inside = window(corner, side, x)
    each = each.transpose(1, 2).where(turned.view(-1, 1, 1), each)
    last = each.shape[1] - 1
    index = down.clamp(0, last) * each.shape[1] + across.clamp(0, last)
    return each.flatten(1).gather(1, index.flatten(1)).view_as(inside) * inside


@cache
def bumps(p: float, height: int, width: int, device: Any, euclidean: bool) -> tuple[Tensor, Tensor]:
    """By how often the window's area was halved: its side, (L,), and its bump, (L, M, M), with 0 beyond its side."""
    import torch

    sides = odd_sides(p, height, width)
    table = torch.zeros(len(sides), max(sides), max(sides))
    for halved, side in enumerate(sides):
        table[halved, :side, :side] = torch.tensor(bump(side, euclidean))
    return torch.tensor(sides, device=device), table.to(device)


@cache
def bump(side: int, euclidean: bool = True) -> list[list[float]]:
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
