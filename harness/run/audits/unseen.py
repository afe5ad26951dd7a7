"""Finds models that are better on the test images than on the training images: they know the test images."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.data.examples import Examples

IMAGES, FEWEST = 512, 100  # of the training split; with fewer there is no finding
UNLIKELY, GAP = 4.0, 0.03  # standard deviations, and a difference in accuracy that is worth a remark


def audit_unseen(probe: Probe, train: Examples, right: int, n: int) -> Iterator[Finding]:
    """Compare accuracy on training images with that on test images: ``right`` of ``n``."""
    count = min(IMAGES, len(train))
    if min(count, n) < FEWEST:
        return
    rows = torch.arange(count, device=train.device)
    known = int((probe.logits(train.pixels(rows)).argmax(1) == train.labels[rows]).sum())
    on_test, on_train = right / n, known / count
    share = (right + known) / (n + count)
    deviation = math.sqrt(share * (1 - share) * (1 / n + 1 / count))
    if on_test - on_train > max(GAP, UNLIKELY * deviation):
        fact = f"accuracy is {on_test:.1%} on {n} test images and {on_train:.1%} on {count} training images"
        yield finding("knows-test-images", fact, test=on_test, training=on_train, n=n, training_images=count)
