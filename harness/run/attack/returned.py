"""What an attack with a loop of its own hands back: images of the right kind, or a message that says what came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from epsbench.attacks.base import Attack
from epsbench.attacks.norms import Norm

_ROUNDING = 1e-4  # relative, and absolute: other libraries project in other ways
_SLACK = 0.05  # of the pixel range: an attack that leaves the box a little is projected and not suspected


def checked_images(attack: Attack, images: Any, x: Tensor) -> Tensor:
    """The images as float32 (N, C, H, W). Raises `ValueError`, naming the attack, for anything that is none."""
    name = type(attack).__name__
    wanted = f"perturb must return a tensor of shape (N, C, H, W), here {tuple(x.shape)}, of pixels in [0, 1]"
    if not isinstance(images, Tensor):
        kind = type(images).__name__
        size = f" of {len(images)}" if isinstance(images, tuple | list) else ""
        raise ValueError(f"attack {name} returned a {kind}{size}; {wanted}")
    if images.shape != x.shape:
        raise ValueError(f"attack {name} returned a tensor of shape {tuple(images.shape)}; {wanted}")
    if not images.is_floating_point():
        raise ValueError(f"attack {name} returned {images.dtype} images; {wanted}")
    if images.device != x.device:
        raise ValueError(f"attack {name} returned images on {images.device}, not on {x.device}; {wanted}")
    return images.detach().float()


@dataclass
class Returned:
    """How many returned images were not where an adversarial image may be, before they were projected."""

    images: int = 0
    """Images that came back."""

    beyond_ball: int = 0
    """Of those: further from their original than ε."""

    no_pixels: int = 0
    """Of those: with values that no step of about ε makes of pixels in [0, 1], such as 255 or normalised values."""

    def note(self, images: Tensor, x: Tensor, eps: Tensor, norm: Norm) -> None:
        """Count images (N, C, H, W) that an attack returned for ``x`` at ``eps`` (N, 1, 1, 1)."""
        radius = eps.flatten()
        flat = images.flatten(1)
        far = norm.size(images - x) > radius * (1 + _ROUNDING) + _ROUNDING
        slack = 2 * radius + _SLACK
        outside = (flat.amin(1) < -slack) | (flat.amax(1) > 1 + slack)
        counts = torch.stack([far.sum(), outside.sum()]).tolist()
        self.images += len(images)
        self.beyond_ball += counts[0]
        self.no_pixels += counts[1]
