"""Augmentations of whole batches on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def _keep(x: Tensor, generator: torch.Generator) -> Tensor:
    return x


def _crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of the image padded with 4 black pixels on each side, mirrored with probability ½."""
    mirrored = torch.rand(len(x), 1, generator=generator, device=x.device) < 0.5
    return _cropped(x, 4, generator, mirrored)


def _shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random shift by up to 2 pixels in each direction; pixels that come from outside the image are black."""
    return _cropped(x, 2, generator)


def _cropped(x: Tensor, margin: int, generator: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
    """Crops of the padded batch, each image at its own offset, by one gather for the whole batch."""
    n, _, height, width = x.shape
    padded = F.pad(x, (margin, margin, margin, margin))
    top, left = torch.randint(2 * margin + 1, (2, n, 1), generator=generator, device=x.device)
    rows = top + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(n, width)
    if mirrored is not None:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    # Indexing on both sides of the channel slice puts the channels last; permute restores (N, C, H, W).
    return padded[image, :, rows.unsqueeze(2), (left + columns).unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": _keep,
    "crop-flip": _crop_flip,
    "shift": _shift,
}
"""By name: a function of images (N, C, H, W) in [0, 1] and a generator on their device that returns as many images."""
