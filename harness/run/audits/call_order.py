"""Finds models whose answer depends on earlier calls: a moved image then gets the answer of the clean one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.points import pairs_of_one_class
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.data.examples import Examples

STEPS = (8 / 255, 0.1, 0.3)  # how far images are moved, in L∞
IMAGES, GUIDES = 48, 64  # in each of both orders, and for the direction of the step
UNLIKELY = 4.0  # standard deviations; chance exceeds them once in 15,000 models


def audit_call_order(probe: Probe, train: Examples) -> Iterator[Finding]:
    """Ask about moved images before and after the clean ones and their gradients; errors must be as frequent.

    All are images that the model has never seen: each is the mean of two training images of one class. Each class is
    moved along the mean gradient of other images of the class, so that no image is asked about too early.
    """
    pairs = pairs_of_one_class(train, GUIDES + 2 * IMAGES * len(STEPS))
    if len(pairs) < GUIDES + 2 * IMAGES * len(STEPS):
        return
    x = (train.pixels(pairs[:, 0]) + train.pixels(pairs[:, 1])) / 2
    y = train.labels[pairs[:, 0]]
    uphill = probe.slope(x[:GUIDES], y[:GUIDES])
    way = torch.stack([uphill[y[:GUIDES] == label].sum(0).sign() for label in range(int(y.max()) + 1)])
    for number, size in enumerate(STEPS):
        start = GUIDES + 2 * IMAGES * number
        errors = []
        for first, clean_first in ((start, False), (start + IMAGES, True)):
            images, labels = x[first : first + IMAGES], y[first : first + IMAGES]
            if clean_first:
                probe.logits(images)
                probe.gradient(images, labels)
            errors.append(_errors(probe, (images + size * way[labels]).clamp(0, 1), labels))
        before, after = errors
        share = (before + after) / (2 * IMAGES)
        deviation = math.sqrt(share * (1 - share) * 2 / IMAGES)
        if deviation and (before - after) / IMAGES > UNLIKELY * deviation:
            fact = (
                f"of {IMAGES} moved images, {before} are misclassified when the model sees them first and {after} "
                "when it has seen the clean ones"
            )
            yield finding("answers-by-call-order", fact, before=before, after=after, images=IMAGES, size=size)
            return


def _errors(probe: Probe, x: Tensor, y: Tensor) -> int:
    return int((probe.logits(x).argmax(1) != y).sum())
