"""Lines of pixels as matrices, and pixels read at shifted places: what the blurs and the digital kinds are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def along_both(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Images (N, C, H, W) resampled by one matrix an axis, (H', H) and (W', W)."""
    return down.to(x) @ x @ across.to(x).T


def gaussian_blur(x: Tensor, deviation: float, truncate: float = 4.0, mode: str = "replicate") -> Tensor:
    """Images convolved with a Gaussian that is cut off at ``truncate`` standard deviations, in pixels.

    ``mode`` is what lies beyond the border: its nearest pixel (``replicate``), or the image mirrored at its edge
    (``symmetric``).
    """
    radius = int(truncate * deviation + 0.5)
    if radius == 0:
        return x
    height, width = (_convolution(side, gaussian(deviation, radius), mode) for side in x.shape[2:])
    return along_both(x, height, width)


def gaussian(deviation: float, radius: int) -> list[float]:
    """A Gaussian at the whole numbers from ``-radius`` to ``radius``, 1 in the middle."""
    return [math.exp(-0.5 * (at / deviation) ** 2) for at in range(-radius, radius + 1)]


def _convolution(side: int, kernel: Sequence[float], mode: str) -> Tensor:
    """The matrix (side, side) of a convolution with a kernel whose sum is made 1."""
    radius = len(kernel) // 2
    at = torch.arange(side)[:, None] + torch.arange(-radius, radius + 1)
    if mode == "symmetric":
        at = at % (2 * side)
        at = torch.where(at >= side, 2 * side - 1 - at, at)
    weight = torch.tensor(kernel, dtype=torch.float64).expand(side, -1) / sum(kernel)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, at.clamp(0, side - 1), weight).float()


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Images correlated with a kernel (k, k), mirrored at the centres of the border pixels."""
    channels, radius = x.shape[1], kernel.shape[0] // 2
    padded = F.pad(x, (radius,) * 4, mode="reflect")
    return F.conv2d(padded, kernel.to(x).expand(channels, 1, -1, -1), groups=channels)


def zoomed(side: int, factor: float) -> Tensor:
    """The matrix (side, side) of a linear zoom into the middle of a line of pixels.

    The crop of ⌈side / factor⌉ pixels is stretched to round(crop · factor), corner to corner, and trimmed.
    """
    crop = math.ceil(side / factor)
    first = (side - crop) // 2
    length = max(round(crop * factor), side)
    trim = (length - side) // 2
    at = (torch.arange(side, dtype=torch.float64) + trim) * ((crop - 1) / max(length - 1, 1)) + first
    return (1 - (at[:, None] - torch.arange(side)).abs()).clamp_min(0).float()


def motion(x: Tensor, angle: Tensor, radius: float, deviation: float) -> Tensor:
    """Images smeared in one direction, each at its own ``angle`` (N,) in degrees.

    A half Gaussian over 2·radius + 1 pixels; beyond the border lies the nearest pixel.
    """
    n, channels, height, width = x.shape
    length = 2 * math.ceil(radius) + 1
    weights = [math.exp(-0.5 * (at / deviation) ** 2) for at in range(length)]
    sine, cosine = torch.deg2rad(angle).sin(), torch.deg2rad(angle).cos()
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    flat, total = x.flatten(2), torch.zeros_like(x)
    for at, weight in enumerate(weights):
        down, across = ((at * part - 0.5).ceil().long() for part in (sine, cosine))
        row = (rows + down[:, None]).clamp(0, height - 1)
        column = (columns + across[:, None]).clamp(0, width - 1)
        index = (row[:, :, None] * width + column[:, None]).view(n, 1, -1).expand(-1, channels, -1)
        total += weight / sum(weights) * flat.gather(2, index).view_as(x)
    return total


def moved(x: Tensor, row: Tensor, column: Tensor, *, at_edges: bool) -> Tensor:
    """Images read at fractional places ``row`` and ``column``, (N, H, W) in pixels, by bilinear interpolation.

    Beyond the border the image is mirrored: at the edges of its pixels, or at their centres.
    """
    height, width = x.shape[2:]
    if at_edges:
        grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], -1)
    else:
        grid = torch.stack([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1], -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=not at_edges)
