"""When Auto-PGD looks back at its last steps."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@cache
def checkpoints(steps: int) -> tuple[tuple[int, int], ...]:
    """The checkpoints of so many steps (Croce and Hein, 2020, section 3.2): after how many steps each is, and how many
    lie between it and the last one.
    """
    length, shortest, shrinks = (max(1, int(share * steps)) for share in (0.22, 0.06, 0.03))
    points, at = [], length
    while at <= steps:
        points.append((at, length))
        length = max(length - shrinks, shortest)
        at += length
    return tuple(points)


def interval(steps: int, step: Tensor) -> Tensor:
    """The number of steps (N,) since the last checkpoint, where a row is at one after ``step`` steps, else 0."""
    return _intervals(steps, step.device)[step.clamp_max(steps)]


@cache
def _intervals(steps: int, device: Any) -> Tensor:
    """The interval that ends after each number of steps, from 0 on, (steps + 1,); 0 where there is no checkpoint."""
    import torch

    lengths = dict(checkpoints(steps))
    return torch.tensor([lengths.get(at, 0) for at in range(steps + 1)], device=device)
