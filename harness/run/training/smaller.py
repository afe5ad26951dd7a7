"""Smaller images for the first epochs of a training, which cost less and teach most of what whole ones do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F


def smaller(x: Tensor, recipe: Mapping[str, Any]) -> Tensor:
    """Images (N, C, H, W) with sides of ``small_scale`` times the whole ones, at least 1 pixel.

    Each pixel is a mean of those it covers, so it stays in their range (progressive resizing; Howard et al., "DAWNBench
    CIFAR-10 and ImageNet entries of fast.ai", 2018).
    """
    height, width = (max(1, round(recipe.get("small_scale", 0.75) * side)) for side in x.shape[2:])
    return F.interpolate(x, (height, width), mode="bilinear", antialias=True)


def is_small(epoch: int, recipe: Mapping[str, Any]) -> bool:
    """Whether an epoch, counted from 0, is one of the first ``small_epochs``."""
    return epoch < recipe.get("small_epochs", 0)
