"""Changes of images and gradients by which adversarial images transfer better. Torch is imported when they are used."""

from __future__ import annotations

from functools import cache
from math import exp
from typing import TYPE_CHECKING, Any

from epsbench.attacks.norms.base import RowNoise

if TYPE_CHECKING:
    from torch import Tensor


def resized_and_padded(x: Tensor, noise: RowNoise, probability: float, smallest: float) -> Tensor:
    """Images of the same shape: with this probability each is shrunk bilinearly and put somewhere on black.

    The side is uniform from ``smallest`` times the image's to the whole (Xie et al., 2019, section 3.3). Every row
    draws its own size and place. Differentiable in ``x`` (N, C, H, W).
    """
    height, width = x.shape[2:]
    random = noise.uniform(4)
    keep = random[:, 3] >= probability
    share = smallest + (1 - smallest) * random[:, 0]
    down = _placement(height, share, random[:, 1], keep)
    across = _placement(width, share, random[:, 2], keep)
    return down[:, None] @ x @ across[:, None].transpose(2, 3)


def _placement(side: int, share: Tensor, place: Tensor, keep: Tensor) -> Tensor:
    """The matrices (N, side, side) that shrink a line of pixels to ``share`` (N,) of it, at ``place`` (N,) in [0, 1).

    The identity where ``keep`` (N,) is true.
    """
    length = (share * side).long().clamp(1, side)
    length = length.where(~keep, length * 0 + side)
    first = (place * (side - length + 1)).long()
    index = share.new_ones(side).cumsum(0) - 1
    at = index - first[:, None]
    source = ((at + 0.5) * (side / length[:, None]) - 0.5).clamp(0, side - 1)  # the centres of pixels, as torch has it
    inside = (at >= 0) & (at < length[:, None])
    weight = 1 - (source[:, :, None] - index).abs()
    return weight.clamp_min(0) * inside[:, :, None]


def smoothed(gradient: Tensor, side: int) -> Tensor:
    """The gradient (N, C, H, W) convolved with a Gaussian of ``side`` pixels (Dong et al., 2019, eq. 7)."""
    from torch.nn import functional as F

    channels = gradient.shape[1]
    line = _gaussian(side, gradient.device)
    kernel = (line[:, None] * line).expand(channels, 1, side, side)
    return F.conv2d(gradient, kernel, padding=side // 2, groups=channels)


@cache
def _gaussian(side: int, device: Any) -> Tensor:
    """A Gaussian over three standard deviations to each side, as published; (side,), its sum is 1."""
    import torch

    middle = side // 2
    values = [exp(-(((at - middle) * 3 / max(middle, 1)) ** 2) / 2) for at in range(side)]
    return torch.tensor([value / sum(values) for value in values], device=device)
