"""Finds models that are no better than guessing, as they are with wrong labels, channels or checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from epsbench.harness.findings import Finding, finding
from epsbench.harness.statistics import wilson

CONFIDENCE = 0.99
CLEARLY_BETTER = 2.0  # times chance: the interval of a model at chance ends below it
# Or below this accuracy: of 1,000 classes it takes thousands of images to tell chance from twice as much. A model of so
# many classes that may be at chance, and is surely below this, is as useless.
SURELY_LOW = 0.1


def audit_chance(right: int, n: int, classes: int) -> Iterator[Finding]:
    """A finding if ``right`` of ``n`` clean images may be chance for so many classes, and is surely little more.

    Few images never give a finding: their interval is too wide.
    """
    if classes < 2 or n == 0:
        return
    chance = 1 / classes
    low, high = wilson(right, n, CONFIDENCE)
    if low <= chance and high < min(max(CLEARLY_BETTER * chance, SURELY_LOW), (1 + chance) / 2):
        fact = (
            f"the model is right on {right} of {n} clean images, and guessing among {classes} classes on {chance:.1%}"
        )
        yield finding("at-chance", fact, right=right, images=n, chance=chance)


def audit_one_class(labels: np.ndarray, right: int, classes: int) -> Iterator[Finding]:
    """A finding if ``right`` clean images are no more than a constant answer gets right, where that is above chance.

    ``labels`` (n,) are those of all clean images. Where they are about balanced, or all the same, nothing is found.
    """
    counts = np.bincount(labels, minlength=classes)
    largest, n = int(counts.argmax()), len(labels)
    most = int(counts[largest])
    if classes < 2 or most == n or right > most or wilson(most, n, CONFIDENCE)[0] <= 1 / classes:
        return
    fact = f"the model is right on {right} of {n} clean images, and always answering class {largest} on {most}"
    yield finding("no-better-than-one-class", fact, right=right, images=n, always=most, answer=largest)
