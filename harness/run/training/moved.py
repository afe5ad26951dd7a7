"""Images that are moved at random, for the training of generative models: more images than there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Motion:
    """The largest amounts by which an image is moved; each is drawn uniformly, up to as much in both directions."""

    shift: float
    """In pixels, down and to the right."""

    turn: float
    """In degrees, around the middle."""

    stretch: float = 0.0
    """The logarithm of a factor for each side."""

    slant: float = 0.0
    """How far a row moves to the side, as a share of its distance from the middle."""


SLIGHT = Motion(shift=1.0, turn=5.0)
"""For images that remain likely as they are."""
WIDE = Motion(shift=1.5, turn=12.0, stretch=0.1, slant=0.15)
"""For images whose class can still be seen."""


def moved(x: Tensor, motion: Motion, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W), each moved at random, by bilinear interpolation; what comes in from outside is 0."""
    n, _, height, width = x.shape

    def drawn() -> tuple[Tensor, ...]:
        return (2 * torch.rand(3, n, generator=generator, device=x.device) - 1).unbind()

    angle, down, right = drawn()
    angle = angle * math.radians(motion.turn)
    cosine, sine = angle.cos(), angle.sin()
    # Where each pixel of the new image comes from: a turn, after it a slant, after it a stretch.
    from_right, from_down = torch.stack([cosine, sine]), torch.stack([-sine, cosine])
    if motion.stretch or motion.slant:
        wide, high, slant = drawn()
        from_right, from_down = (
            from_right * (wide * motion.stretch).exp(),
            (from_down + slant * motion.slant * from_right) * (high * motion.stretch).exp(),
        )
    # In units of half the image, as `affine_grid` has them; turning a wide image mixes both units.
    matrix = torch.stack(
        [
            torch.stack([from_right[0], from_down[0] * height / width, right * motion.shift * 2 / width], dim=1),
            torch.stack([from_right[1] * width / height, from_down[1], down * motion.shift * 2 / height], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, [n, x.shape[1], height, width], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
