"""Weather: snow, frost and fog."""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.harness.run.data.corruption.colour import grey
from epsbench.harness.run.data.corruption.resampling import along_both, motion, zoomed
from epsbench.harness.run.noise import KeyedNoise


def fog(x: Tensor, noise: KeyedNoise, constants: tuple[float, float]) -> Tensor:
    """A bright height map over the image, scaled back to the image's range."""
    strength, decay = constants
    brightest = x.amax((1, 2, 3), keepdim=True)
    hazy = x + strength * height_map(noise, x.shape[2], x.shape[3], decay)
    return hazy * brightest / (brightest + strength)


def frost(x: Tensor, noise: KeyedNoise, constants: tuple[float, float]) -> Tensor:
    """The image and a texture of frost, added with these weights.

    The authors add photographs of frost. Here it is a bluish field of ridges, computed from two height maps.
    """
    image, texture = constants
    height, width = x.shape[2:]
    coarse, fine = height_map(noise, height, width, 1.7), height_map(noise, height, width, 1.3)
    ridges = (1 - (2 * coarse - 1).abs()) ** 2 * 0.6 + fine * 0.4
    tint = x.new_tensor((0.85, 0.95, 1.0) if x.shape[1] == 3 else (0.95,)).view(1, -1, 1, 1)
    return image * x + texture * ridges * tint


def snow(x: Tensor, noise: KeyedNoise, constants: tuple[float, ...]) -> Tensor:
    """Flakes of Gaussian noise, zoomed, cut off below a threshold and smeared downwards, over a whitened image."""
    mean, deviation, factor, threshold, radius, blur, image = constants
    height, width = x.shape[2:]
    flakes = mean + deviation * noise.normal(1, height, width)
    flakes = along_both(flakes, zoomed(height, factor), zoomed(width, factor))
    flakes = (flakes.masked_fill(flakes < threshold, 0.0).clamp(0, 1) * 255).floor() / 255
    flakes = motion(flakes, -135 + 90 * noise.uniform(1).flatten(), radius, blur)
    white = image * x + (1 - image) * x.maximum(1.5 * grey(x) + 0.5)
    return white + flakes + flakes.flip(2, 3)


def height_map(noise: KeyedNoise, height: int, width: int, decay: float) -> Tensor:
    """Random landscapes (N, 1, H, W) from 0 to 1 by the diamond-square algorithm; ``decay`` a level smooths them.

    The map is a torus with a side that is a power of two; its upper left part is used.
    """
    side = 1 << (max(height, width) - 1).bit_length()
    drawn = 2 * noise.uniform(side, side) - 1
    field = torch.zeros_like(drawn)
    step, wobble = side, 100.0
    while step >= 2:
        half = step // 2
        corners, random = field[:, ::step, ::step], wobble * wobble * drawn
        square = corners + corners.roll(-1, 1)
        square = square + square.roll(-1, 2)
        field[:, half::step, half::step] = square / 4 + random[:, half::step, half::step]
        middles = field[:, half::step, half::step]
        across = middles + middles.roll(1, 1) + corners + corners.roll(-1, 2)
        field[:, ::step, half::step] = across / 4 + random[:, ::step, half::step]
        down = middles + middles.roll(1, 2) + corners + corners.roll(-1, 1)
        field[:, half::step, ::step] = down / 4 + random[:, half::step, ::step]
        step, wobble = half, wobble / decay
    lowest = field.amin((1, 2), keepdim=True)
    field = (field - lowest) / (field.amax((1, 2), keepdim=True) - lowest)
    return field[:, None, :height, :width]
