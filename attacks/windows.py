"""The windows of the square attack: how large they are after so many queries, and which pixels they cover."""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import TYPE_CHECKING, Any

from epsbench.attacks.norms.base import per_row

if TYPE_CHECKING:
    from torch import Tensor

HALVINGS = (10, 50, 200, 500, 1_000, 2_000, 4_000, 6_000, 8_000)  # queries after which the window's area is halved


def level(step: Tensor) -> Tensor:
    """How often the window's area has been halved after so many queries (N,)."""
    import torch

    return torch.bucketize(step, _halvings(step.device))


def square_window(p: float, height: int, width: int, halved: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
    """Two factors of `window`, (N, 1, H, 1) and (N, 1, 1, W), for the squares of L∞.

    Their area was halved so often (N,); the first covers a share ``p`` of the image.
    """
    places, down, across = _lines(p, height, width, halved.device)
    place = (corner * places[halved]).long()
    rows, columns = down[halved, place[:, 0]], across[halved, place[:, 1]]
    return rows.view(-1, 1, height, 1), columns.view(-1, 1, 1, width)


def window(corner: Tensor, side: Tensor, x: Tensor) -> Tensor:
    """1 in each row's window and 0 elsewhere, (N, 1, H, W): ``corner`` (N, 2) is its place as a share of all places."""
    down, across = offsets(corner, side, x)
    down, across = ((at >= 0) & (at < per_row(side)) for at in (down, across))
    return down.float() * across.float()


def offsets(corner: Tensor, side: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """How far each pixel is below and right of the window's corner: (N, 1, H, 1) and (N, 1, 1, W)."""
    height, width = x.shape[2:]
    top = (corner[:, 0] * (height - side)).long()
    left = (corner[:, 1] * (width - side)).long()
    rows, columns = top.new_ones(height).cumsum(0) - 1, top.new_ones(width).cumsum(0) - 1
    return rows.view(1, 1, -1, 1) - per_row(top), columns.view(1, 1, 1, -1) - per_row(left)


def odd_sides(p: float, height: int, width: int) -> list[int]:
    """The side of the window by how often its area was halved: odd, and 3 or more, for the bumps of L2 and L1."""
    largest = min(height, width)
    largest -= 1 - largest % 2
    return [min(max(round(sqrt(p * 0.5**halved * height * width)), 3) | 1, largest)
            for halved in range(len(HALVINGS) + 1)]  # fmt: skip


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
