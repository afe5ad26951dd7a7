"""The brightness of colour images."""

from __future__ import annotations

from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue (ITU-R BT.601)."""


def grey(x: Tensor) -> Tensor:
    """The brightness (N, 1, H, W) of images (N, 1 or 3, H, W)."""
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
