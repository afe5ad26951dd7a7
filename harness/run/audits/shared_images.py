"""Finds test images that are training images, too, in data of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.data.examples import Data, Examples

AT_ONCE = 1024


def audit_shared_images(data: Data) -> Iterator[Finding]:
    """A finding if test images are among the training and validation images, pixel by pixel, rounded to 256 levels.

    The data sets that come along are as their authors split them, and are not looked at.
    """
    if not data.description.content or not len(data.train) or not len(data.test):
        return
    known = {*_keys(data.train), *_keys(data.validation)}
    shared = [position for position, key in enumerate(_keys(data.test)) if key in known]
    if shared:
        number = f"{len(shared):,} of {len(data.test):,} test images are training or validation images, too"
        yield finding(
            "shared-images",
            f"{number} (the first is test image {shared[0]})",
            shared=len(shared),
            images=len(data.test),
            first=shared[:10],
        )


def _keys(examples: Examples) -> Iterator[bytes]:
    """For each image what is the same for equal ones: the bytes of its pixels at 256 levels."""
    for start in range(0, len(examples), AT_ONCE):
        pixels = examples.pixels(slice(start, start + AT_ONCE))
        levels = (pixels * 255).round().byte().flatten(1).cpu().numpy()
        yield from (_digest(image.tobytes()) for image in levels)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
