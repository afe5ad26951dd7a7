"""The common corruptions of Hendrycks and Dietterich (2019), for images of any size, as operations on whole batches.

Formulas and constants are those of the authors' code. The images are generated here and not those of CIFAR-10-C or
ImageNet-C: random numbers are keyed by image, and frost is a computed texture and not a photograph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.plan.axes.corruptions import LEAST_SIDE, MOST_SEVERE
from epsbench.harness.run.data.corruption import blur, digital, noise, weather
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.data.streamed import StreamedExamples, streamed
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.noise import KeyedNoise

Corrupt = Callable[[Tensor, KeyedNoise, Any], Tensor]
"""Images (N, C, H, W) on the grid of 256 grey levels, random numbers, and the constants of a severity → images."""

SMALL = 64
"""Images whose shorter side has at most so many pixels take the constants of CIFAR-10-C, others those of ImageNet-C."""

SEED = 0  # the same corrupted images for every model and every seed of a cell
PIXELS = 2**22  # of a chunk, to bound the memory


def _zooms(stop: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(1, stop, step).tolist())


CORRUPTIONS: dict[str, tuple[Corrupt, Sequence[Any], Sequence[Any]]] = {
    "gaussian-noise": (noise.gaussian, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot-noise": (noise.shot, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse-noise": (noise.impulse, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus-blur": (
        blur.defocus,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass-blur": (
        blur.glass,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion-blur": (
        blur.motion,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom-blur": (
        blur.zoom,
        tuple(_zooms(stop, 0.01) for stop in (1.06, 1.11, 1.16, 1.21, 1.26)),
        (_zooms(1.11, 0.01), _zooms(1.16, 0.01), _zooms(1.21, 0.02), _zooms(1.26, 0.02), _zooms(1.31, 0.03)),
    ),
    "snow": (
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (
        weather.frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": (
        weather.fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": (digital.brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (digital.contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    # Shares of the image's side; ImageNet-C was made with 244 in place of 224 pixels.
    "elastic-transform": (
        blur.elastic,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        tuple(
            tuple(244 / 224 * share for share in shares)
            for shares in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
    ),
    "pixelate": (digital.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg-compression": (digital.jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}  # fmt: skip
"""Kind → its function, and its constants for severities 1 to 5: of small images, and of large ones."""


def corrupted(examples: Examples, name: str, severity: int) -> Examples:
    """The examples with every image corrupted, on 256 grey levels.

    What happens to an image depends on its position, the kind and the severity, and on no other image.
    """
    function, small, large = CORRUPTIONS[name]
    n, channels, height, width = (len(examples), *examples.pixels(slice(0, 1)).shape[1:])
    constants = (small if min(height, width) <= SMALL else large)[severity - 1]
    stream = list(LEAST_SIDE).index(name) * MOST_SEVERE + severity
    everyone = torch.arange(n, device=examples.device)

    def of_chunk(rows: slice) -> Tensor:
        x = (examples.pixels(rows) * 255).round() / 255
        keyed = KeyedNoise(SEED, everyone[rows], torch.full_like(everyone[rows], stream))
        return (function(x, keyed, constants).clamp(0, 1) * 255).round().to(torch.uint8)

    step = max(1, PIXELS // (channels * height * width))
    if isinstance(examples, StreamedExamples):
        parts = (of_chunk(slice(at, min(at + step, n))).cpu().numpy() for at in range(0, n, step))
        return streamed(parts, n, examples.labels, f"images with {name}")
    return Examples(in_chunks(of_chunk, n, step), examples.labels, 255)
