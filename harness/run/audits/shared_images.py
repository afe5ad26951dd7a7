"""Finds test images that are training images, too, in data of the user's own."""

from __future__ import annotations

from collections.abc import Iterator

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.data.examples import Data


def audit_shared_images(data: Data) -> Iterator[Finding]:
    """A finding if test images are among the training and validation images, pixel by pixel, rounded to 256 levels.

    The data sets that come along are as their authors split them, and are not looked at.
    """
    if not data.description.content or not len(data.train) or not len(data.test):
        return
    shared = data.seen_in_training
    if shared:
        number = f"{len(shared):,} of {len(data.test):,} test images are training or validation images, too"
        yield finding(
            "shared-images",
            f"{number} (the first is test image {shared[0]})",
            shared=len(shared),
            images=len(data.test),
            first=shared[:10],
        )
