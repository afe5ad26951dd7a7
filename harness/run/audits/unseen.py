"""Finds models that know the test images: they are better on them than on training images, or more robust."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.points import pairs_of_one_class, random_signs, share_of, some_of
from epsbench.harness.run.audits.probe import Probe, log_odds
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.metrics import share_of
from epsbench.harness.statistics import fisher_exact

IMAGES, FEWEST = 512, 100  # of each split; with fewer there is no finding
UNLIKELY, GAP = 4.0, 0.03  # standard deviations, and a difference in accuracy that is worth a remark
SURER = 0.75  # how often a test image has a larger margin than a training image; an honest model has 0.5 or less
# The difference in robust accuracy that is worth a remark, and its p-value. No honest model of tests/run/audits (65 of
# them, at three ε) differed by more than 0.11 from training images, or by more than 0.28 from joined halves.
TRAINING, HALVES = "training images", "joined halves of training images"
UNDER_ATTACK, SIGNIFICANT = {TRAINING: 0.25, HALVES: 0.4}, 1e-3
FEWEST_ATTACKED = 16  # of each split


def audit_unseen(probe: Probe, train: Examples, test: Examples) -> Iterator[Finding]:
    """Compare test and training images: accuracy, how it falls when images move slightly, and margins.

    A model may be worse on test images than on training images in each way, and is not much better in any.
    """
    n, m = min(IMAGES, len(test)), min(IMAGES, len(train))
    if min(n, m) < FEWEST:
        return
    both = [(split, some_of(len(split), k, split.device)) for split, k in ((test, n), (train, m))]
    # The images of one split at a time: of large ones, some hundreds take much memory.
    logits = [probe.logits(split.pixels(at)) for split, at in both]
    labels = [split.labels[at] for split, at in both]
    right = [_right(each, y) for each, y in zip(logits, labels, strict=True)]
    yield from _more_accurate(right[0], right[1])
    for name, move in MOVES.items():
        moved = [_right(probe.logits(move(split.pixels(at))), split.labels[at]) for split, at in both]
        lost = [before & ~after for before, after in zip(right, moved, strict=True)]
        if _exceeds(lost[0], lost[1]):
            shares = {"test": share_of(lost[0]), "training": share_of(lost[1])}
            fact = (
                f"{name} makes the model wrong on {shares['test']:.1%} of {n} test images and on "
                f"{shares['training']:.1%} of {m} training images"
            )
            yield finding("knows-test-images", fact, **shares, n=n, training_images=m, moved=name)
            return
    surer = _auc(*(-log_odds(each, y)[good] for each, y, good in
                   zip(logits, labels, right, strict=True)))  # fmt: skip
    if surer > SURER:
        fact = f"a test image has a larger margin than a training image in {surer:.0%} of all pairs"
        yield finding("knows-test-images", fact, share=surer, n=n, training_images=m)


def audit_robust_on_test_alone(test: Tensor, others: Mapping[str, Tensor], eps: float) -> Iterator[Finding]:
    """Compare which test images (N,) gradient steps fool at ``eps`` with those of ``others`` (M,), by name."""
    for name, fooled in others.items():
        n, m = len(test), len(fooled)
        if min(n, m) < FEWEST_ATTACKED:
            continue
        stands, stand = n - int(test.sum()), m - int(fooled.sum())
        if stands / n - stand / m > UNDER_ATTACK[name] and fisher_exact(stands, n, stand, m) < SIGNIFICANT:
            fact = f"under the same steps, {stands} of {n} test images and {stand} of {m} {name} withstand"
            evidence = {"test": stands / n, "others": stand / m, "n": n, "of": m, "eps": eps}
            yield finding("knows-test-images", fact, **evidence)
            return


def halves_joined(train: Examples, most: int) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels (N,): left and right half of two training images of one class.

    No model can have stored them, and their pixels are distributed as those of images are; means of two images are
    grey where images are not, and easily fooled.
    """
    pairs = pairs_of_one_class(train, most)
    left, right = train.pixels(pairs[:, 0]), train.pixels(pairs[:, 1])
    middle = left.shape[3] // 2
    return torch.cat([left[..., :middle], right[..., middle:]], 3), train.labels[pairs[:, 0]]


def _shifted(x: Tensor) -> Tensor:
    """Moved right by one pixel; what comes in is 0."""
    return F.pad(x, (1, 0, 0, 0))[..., :-1]


def _with_noise(x: Tensor) -> Tensor:
    return (x + 1 / 255 * random_signs(x, 7)).clamp(0, 1)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {"noise of 1/255": _with_noise, "a shift by one pixel": _shifted}


def _more_accurate(test: Tensor, train: Tensor) -> Iterator[Finding]:
    if _exceeds(test, train):
        shares = {"test": share_of(test), "training": share_of(train)}
        fact = (
            f"accuracy is {shares['test']:.1%} on {len(test)} test images and {shares['training']:.1%} on "
            f"{len(train)} training images"
        )
        yield finding("knows-test-images", fact, **shares, n=len(test), training_images=len(train))


def _exceeds(first: Tensor, second: Tensor) -> bool:
    """Whether rows (n,) are true clearly more often than others (m,)."""
    n, m = len(first), len(second)
    share = (int(first.sum()) + int(second.sum())) / (n + m)
    deviation = math.sqrt(share * (1 - share) * (1 / n + 1 / m))
    return share_of(first) - share_of(second) > max(GAP, UNLIKELY * deviation)


def _auc(first: Tensor, second: Tensor) -> float:
    """The share of pairs in which a value (n,) of the first is larger than one of the second, ties counted half."""
    if not len(first) or not len(second):
        return 0.5
    difference = first[:, None] - second[None]
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def _right(logits: Tensor, y: Tensor) -> Tensor:
    return logits.argmax(1) == y
