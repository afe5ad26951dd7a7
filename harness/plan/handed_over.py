"""Adversarial images that somebody else made, as an attack: judged, projected and audited like any other."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from epsbench.attacks.base import BatchAttack, Network, RowNoise
from epsbench.harness.errors import InputError
from epsbench.harness.plan.data.decoded import Decoder
from epsbench.harness.plan.data.members import members_of
from epsbench.harness.plan.data.pixels import Images

if TYPE_CHECKING:
    from torch import Tensor

ARRAYS = ("images", "x_adv", "adversarial", "x")
"""What the array of images may be called."""
LABELS = ("labels", "y")
"""What the array of their labels may be called, where there is one."""


@dataclass(frozen=True, kw_only=True)
class HandedOver(BatchAttack):
    """The images of a ``.npz`` file, one for each test image, in their order.

    The images are floats in [0, 1] or uint8, (n, C, H, W) or (n, H, W, C), in an array ``images`` or ``x_adv``. What
    lies outside the ball is projected, and a finding says so. Labels beside them must be those of the test images
    (`other_labels`).
    """

    version: ClassVar[int | str] = 1

    images_file: str = field(repr=False)
    """The path of the file."""

    def digest(self) -> str:
        """A digest of the file. Raises `ValueError` where it cannot be read."""
        try:
            with Path(self.images_file).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise ValueError(f"images {self.images_file}: cannot be read ({error.strerror}); check the path") from error

    @cached_property
    def images(self) -> Images:
        """The images (n, C, H, W), in a file where memory is short. Raises `InputError` where there are none."""
        path = self.images_file
        arrays = members_of(Path(path))
        name = next((name for name in ARRAYS if name in arrays), None)
        if name is None:
            single = "" in arrays
            what = "holds one array without a name" if single else "has no array of images"
            raise InputError(
                f"{path}: {what}; save it as numpy.savez({str(Path(path).with_suffix('.npz'))!r}, images=…)"
            )
        member = arrays[name]
        member.require_plain()
        size = math.prod(member.shape) * (1 if member.dtype == np.uint8 else 4)
        return Decoder(path, size).collect("images", member.chunks(), len(member), path)

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        import torch

        rows: Any = getattr(noise, "example", None)
        if rows is None:
            raise ValueError("images in a file belong to the test images of a suite, and can be judged there only")
        fits_to(self, int(rows.max()) + 1, tuple(x.shape[1:]))
        images = self.images[rows.cpu().numpy()]
        scale = 255 if images.dtype == np.uint8 else 1
        return torch.from_numpy(images).to(x.device).float() / scale


def other_labels(attack: HandedOver, labels: np.ndarray) -> str:
    """What is wrong where the file has labels that are not those of the test images, (n,); empty where nothing is.

    Images in another order than the test images would be projected into the balls around the wrong ones.
    """
    arrays = members_of(Path(attack.images_file))
    name = next((name for name in LABELS if name in arrays and arrays[name].dtype.kind in "iu"), None)
    if name is None:
        return ""
    own = arrays[name].read().reshape(-1)[: len(labels)]
    if len(own) < len(labels):
        what = f"there are {len(own):,}, and {len(labels):,} test images"
    elif len(wrong := np.flatnonzero(own != labels)):
        what = f"image {wrong[0]} has the label {own[wrong[0]]}, and the test image {labels[wrong[0]]}"
    else:
        return ""
    return (
        f"{attack.images_file}: its {name} are not those of the test images ({what}); put the images into the order of "
        f"the test images, or leave out {name} where they are something else"
    )


def fits_to(attack: HandedOver, n: int, shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless the file has images of this shape (C, H, W) for the first ``n`` test images."""
    images = attack.images
    if images.shape[1:] != shape:
        shapes = [" × ".join(map(str, each)) for each in (images.shape[1:], shape)]
        raise InputError(f"{attack.images_file}: its images are {shapes[0]}, and the data's {shapes[1]}")
    if len(images) < n:
        raise InputError(
            f"{attack.images_file}: holds {len(images):,} images for {n:,} test images; one for each is needed, in the "
            "same order"
        )
