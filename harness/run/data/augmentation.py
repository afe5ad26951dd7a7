"""Augmentations of whole batches on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.harness.errors import FAILURES, summary
from epsbench.harness.isolation import seed_global
from epsbench.harness.plan.names.augmentations import own_augmentation

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""A function of images (N, C, H, W) in [0, 1] and a generator on their device that returns as many images."""


def _keep(x: Tensor, generator: torch.Generator) -> Tensor:
    return x


def _crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of the image padded with 4 black pixels on each side, mirrored with probability ½."""
    return _cropped(x, 4, generator, flips=True)


def _reflect_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of the image whose border is mirrored by 2 pixels on each side, mirrored with probability ½.

    The augmentation of short trainings (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, section 3).
    """
    return _cropped(x, 2, generator, flips=True, border="reflect")


def _shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random shift by up to 2 pixels in each direction; pixels that come from outside the image are black."""
    return _cropped(x, 2, generator)


def _cropped(
    x: Tensor, margin: int, generator: torch.Generator, *, flips: bool = False, border: str = "constant"
) -> Tensor:
    """Crops of the padded batch, each image at its own offset, by one gather for the whole batch.

    With ``flips``, each image is mirrored with probability ½.
    ``border`` is what `torch.nn.functional.pad` calls mode: ``constant`` is black.
    """
    n, _, height, width = x.shape
    mirrored = torch.rand(n, 1, generator=generator, device=x.device) < 0.5 if flips else None
    padded = F.pad(x, (margin, margin, margin, margin), mode=border)
    top, left = torch.randint(2 * margin + 1, (2, n, 1), generator=generator, device=x.device)
    rows = top + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(n, width)
    if mirrored is not None:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    # Indexing on both sides of the channel slice puts the channels last; permute restores (N, C, H, W).
    return padded[image, :, rows.unsqueeze(2), (left + columns).unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": _keep,
    "crop-flip": _crop_flip,
    "reflect-flip": _reflect_flip,
    "shift": _shift,
}
"""The built-in augmentations by name."""


def augmentation_of(name: str, base: Path) -> Augmentation:
    """The augmentation of this name; a file of the user's own is relative to ``base``."""
    return AUGMENTATIONS[name] if name in AUGMENTATIONS else own_augmentation(name, base)


def augmentation_problem(augment: Augmentation, x: Tensor, seed: int) -> str | None:
    """What is wrong with an augmentation of images ``x`` (N, C, H, W); None where nothing is.

    It has to return as many float32 images in [0, 1], change none of its input, and do the same again from the same
    seed. It may draw from the global generators of torch, NumPy and Python, too, which are seeded before it is called.
    """
    given, results = x.clone(), []
    for _ in range(2):
        seed_global(seed)
        try:
            results.append(augment(x, torch.Generator(x.device).manual_seed(seed)))
        # The function is the user's: it may raise anything, or even try to exit.
        except FAILURES as error:
            return f"for {len(x)} images it raises {summary(error)}; it takes images and a torch.Generator"
        if not torch.equal(x, given):
            return "it changes the images that it is given; let it work on a copy"
    first, again = results
    wanted = f"it must return float32 images of shape {tuple(x.shape)}"
    if not isinstance(first, Tensor):
        return f"it returns a {type(first).__name__}; {wanted}"
    if first.shape != x.shape or first.dtype != torch.float32:
        return f"it returns {first.dtype} of shape {tuple(first.shape)}; {wanted}"
    if first.device != x.device:
        return f"it returns images on {first.device}; {wanted}, on {x.device}"
    if not bool(first.isfinite().all()) or float(first.min()) < 0 or float(first.max()) > 1:
        low, high = float(first.min()), float(first.max())
        return f"it returns pixels from {low:.3g} to {high:.3g}; clamp them to [0, 1]: the model normalises by itself"
    if not torch.equal(first, again):
        return (
            "it does something else when it is called again from the same seed, so a training could not be repeated; "
            "draw from the generator that it is given, or from a global one of torch, NumPy or Python"
        )
    return None
