"""Blurs and the elastic transformation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from epsbench.harness.run.data.corruption.resampling import along_both, filtered, gaussian, gaussian_blur, moved, zoomed
from epsbench.harness.run.data.corruption.resampling import motion as smeared
from epsbench.harness.run.noise import KeyedNoise


def defocus(x: Tensor, noise: KeyedNoise, constants: tuple[float, float]) -> Tensor:
    """A disk of this radius, softened by a Gaussian of 3 or 5 pixels a side."""
    radius, alias = constants
    reach, half = math.ceil(radius) if radius >= 1 else 0, 1 if radius <= 8 else 2
    line = torch.arange(-reach - half, reach + half + 1, dtype=torch.float64)
    disk = ((line**2 + line[:, None] ** 2) <= radius**2).double()
    kernel = (disk / disk.sum()).float()
    soft = gaussian(alias, half)
    tap = torch.tensor(soft) / sum(soft)
    kernel = torch.conv2d(kernel[None, None], torch.outer(tap, tap)[None, None], padding=half)[0, 0]
    return filtered(x, kernel)


def glass(x: Tensor, noise: KeyedNoise, constants: tuple[float, int, int]) -> Tensor:
    """Blurred, then pixels take the place of near ones, one after the other, then blurred again.

    As in the authors' code a pixel is overwritten by its neighbour, which the paper calls a shuffle.
    """
    deviation, reach, rounds = constants
    x = (gaussian_blur(x, deviation) * 255).floor() / 255
    n, channels, height, width = x.shape
    flat = x.flatten(2).permute(2, 0, 1).contiguous()  # a pixel of all images is one block of memory
    everyone = torch.arange(n, device=x.device)
    for _ in range(rounds):
        steps = (noise.uniform(2, height, width) * (2 * reach)).long() - reach
        offset = (steps[:, 0] * width + steps[:, 1]).permute(1, 2, 0)
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                at = row * width + column
                flat[at] = flat[at + offset[row, column], everyone]
    x = flat.permute(1, 2, 0).reshape(n, channels, height, width)
    return gaussian_blur(x, deviation)


def motion(x: Tensor, noise: KeyedNoise, constants: tuple[float, float]) -> Tensor:
    """Smeared in a direction between −45 and 45 degrees."""
    radius, deviation = constants
    return smeared(x, 90 * noise.uniform(1).flatten() - 45, radius, deviation)


def zoom(x: Tensor, noise: KeyedNoise, factors: tuple[float, ...]) -> Tensor:
    """The mean of the image and of zooms into it."""
    height, width = x.shape[2:]
    total = x.clone()
    for factor in factors:
        total += along_both(x, zoomed(height, factor), zoomed(width, factor))
    return total / (len(factors) + 1)


def elastic(x: Tensor, noise: KeyedNoise, shares: tuple[float, float, float]) -> Tensor:
    """A random affine map, and then smooth random displacements.

    The constants are the largest displacement, how far it is smoothed, and how far the affine map moves three points,
    all as shares of the image's shorter side.
    """
    height, width = x.shape[2:]
    strength, deviation, affine = (min(height, width) * share for share in shares)
    # The map takes three points around the middle to points that are moved at random; pixels are read at its inverse.
    reach = min(height, width) // 3
    middle_row, middle_column = height // 2, width // 2
    corners = torch.tensor(
        [
            [middle_row + reach, middle_column + reach, 1.0],
            [middle_row + reach, middle_column - reach, 1.0],
            [middle_row - reach, middle_column - reach, 1.0],
        ],
        device=x.device,
    )
    to = corners[:, :2] + affine * (2 * noise.uniform(3, 2) - 1)
    rows, columns = torch.meshgrid(*(torch.arange(side, device=x.device) for side in (height, width)), indexing="ij")
    places = torch.stack([rows, columns, torch.ones_like(rows)], -1).float()
    whole = torch.cat([to, torch.ones_like(to[..., :1])], -1)
    back = torch.linalg.solve(whole, corners.expand_as(whole))  # (N, 3, 3): from where each point comes
    read = places.view(1, -1, 3) @ back
    row, column = (read[..., axis].view(-1, height, width) for axis in (0, 1))
    x = moved(x, row, column, at_edges=False)
    drawn = 2 * noise.uniform(2, height, width) - 1
    shift = strength * gaussian_blur(drawn, deviation, truncate=3.0, mode="symmetric")
    return moved(x, rows + shift[:, 1], columns + shift[:, 0], at_edges=True)
