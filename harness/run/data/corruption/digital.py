"""Digital changes: brightness, contrast, pixelation and JPEG."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.harness.run.data.corruption.colour import grey
from epsbench.harness.run.data.corruption.resampling import along_both
from epsbench.harness.run.noise import KeyedNoise

# Annex K of the JPEG standard (ITU-T T.81): the quantisation tables of brightness and of colour.
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, *(99,) * 32,
)  # fmt: skip


def brightness(x: Tensor, noise: KeyedNoise, more: float) -> Tensor:
    """The value of hue, saturation and value is raised; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp_max(1.0)
    return torch.where(value > 0, x * (raised / value.clamp_min(1e-12)), raised)


def contrast(x: Tensor, noise: KeyedNoise, factor: float) -> Tensor:
    """Every channel is drawn towards its mean."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def pixelate(x: Tensor, noise: KeyedNoise, share: float) -> Tensor:
    """Shrunk by averaging to this share of each side, and enlarged again without interpolation."""
    height, width = x.shape[2:]
    down = [_box(side, max(1, int(side * share))) for side in (height, width)]
    up = [_box(small.shape[0], small.shape[1]) for small in down]
    small = (along_both(x, *down) * 255).round() / 255
    return along_both(small, *up)


def _box(side: int, to: int) -> Tensor:
    """The matrix (to, side) that resamples a line of pixels with a box filter over whole pixels, as Pillow does."""
    scale = side / to
    reach = 0.5 * max(scale, 1.0)
    matrix = torch.zeros(to, side)
    for at in range(to):
        centre = (at + 0.5) * scale
        first, last = max(0, int(centre - reach + 0.5)), min(side, int(centre + reach + 0.5))
        inside = [k for k in range(first, last) if -0.5 < (k - centre + 0.5) / max(scale, 1.0) <= 0.5]
        matrix[at, inside] = 1 / len(inside)
    return matrix


def jpeg(x: Tensor, noise: KeyedNoise, quality: int) -> Tensor:
    """Compressed and decompressed as a baseline JPEG, colour at half the resolution: what is lost is the rounding."""
    height, width = x.shape[2:]
    block = 16 if x.shape[1] == 3 else 8
    x = F.pad(x * 255, (0, -width % block, 0, -height % block), mode="replicate")
    if x.shape[1] == 1:
        return _quantised(x, _LUMA, quality)[:, :, :height, :width] / 255
    brightness, (red, _, blue) = grey(x), x.split(1, 1)
    chroma = [(128 + (colour - brightness) / scale).round().clamp(0, 255)
              for colour, scale in ((blue, 1.772), (red, 1.402))]  # fmt: skip
    luma = _quantised(brightness.round(), _LUMA, quality)
    cb, cr = (_enlarged(_quantised(_halved(each), _CHROMA, quality)) - 128 for each in chroma)
    decoded = torch.cat([luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], 1)
    return decoded[:, :, :height, :width].round() / 255


def _quantised(plane: Tensor, table: tuple[int, ...], quality: int) -> Tensor:
    """A plane (N, 1, H, W) of 0 to 255 with its 8 by 8 cosine coefficients rounded to multiples of a table."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    entries = [min(max(int((entry * int(scale) + 50) / 100), 1), 255) for entry in table]
    step = plane.new_tensor(entries).view(8, 8)
    n, _, height, width = plane.shape
    cosine = _cosine().to(plane)
    blocks = (plane - 128).view(n, height // 8, 8, width // 8, 8).transpose(2, 3)
    coefficients = _rounded(cosine @ blocks @ cosine.T / step) * step
    pixels = (cosine.T @ coefficients @ cosine).transpose(2, 3).reshape(n, 1, height, width)
    return _rounded(pixels + 128).clamp(0, 255)


def _rounded(x: Tensor) -> Tensor:
    """The nearest integers, halves away from 0: halves are frequent among coefficients."""
    return x.sign() * (x.abs() + (0.5 + 1e-4)).floor()


def _halved(plane: Tensor) -> Tensor:
    """A plane at half the resolution: means of 4, rounded down and up in turn along a row where they are halves."""
    bias = plane.new_tensor([1.0, 2.0]).repeat(plane.shape[3] // 4 + 1)[: plane.shape[3] // 2]
    return ((4 * F.avg_pool2d(plane, 2) + bias) / 4 + 1e-4).floor()


@cache
def _cosine() -> Tensor:
    """The orthonormal discrete cosine transform of 8 values, (8, 8)."""
    rows = [[math.cos((2 * at + 1) * k * math.pi / 16) * math.sqrt((1 if k == 0 else 2) / 8) for at in range(8)]
            for k in range(8)]  # fmt: skip
    return torch.tensor(rows)


def _enlarged(plane: Tensor) -> Tensor:
    """A plane at twice the resolution: each pixel is 3/4 of the nearest and 1/4 of the next one along each axis."""
    return F.interpolate(plane, scale_factor=2, mode="bilinear", align_corners=False)
