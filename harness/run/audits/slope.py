"""Finds gradients that are not the derivative, also where attacks go: a decoy points elsewhere, vanishes or is NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.gradients import broken_gradients, zero_share
from epsbench.harness.run.audits.points import spread
from epsbench.harness.run.audits.probe import Probe, log_odds

SCALES = (3e-4, 1e-3, 1 / 255, 4 / 255, 16 / 255)  # several: a model may round pixels to bytes and be honest
LOW, HIGH = 0.5, 2.0  # the rise that a step delivers, as a share of what the gradient promises
RESOLVED = 2e-5  # of the spread of the logits; a smaller rise is lost in rounding
AGREE, FEWEST = 0.6, 16  # share of images on which some scale agrees; with fewer images there is no finding
# Each place begins with so many images. Where steps deliver what gradients promise on all of these, the rest is not
# asked about: if steps did so on 60 % of the images, they would on all of these once in sixty times; of decoys they do
# so on half of the images at most.
SCREENED = 8
VANISHES = 0.25  # of the images: so many more gradients of exactly 0 at moved images than at clean ones


def audit_slope(probe: Probe, moved: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Compare finite differences along the gradient with the gradient, at the ``moved`` images, by name.

    The first are the clean ones; elsewhere the gradient must be as seldom 0. It is seldom where all is as promised.
    """
    clean = 0.0
    for number, (name, x) in enumerate(moved.items()):
        if len(x) > SCREENED and _as_promised(probe, x):
            continue
        gradient = probe.slope(x, probe.y)
        broken = list(broken_gradients(gradient, name))
        if broken:
            yield from broken
            return
        zero = zero_share(gradient)
        clean = clean if number else zero
        if zero - clean > VANISHES and len(x) >= FEWEST:
            fact = f"{zero:.0%} of the gradients are exactly 0 ({name}) and {clean:.0%} at clean images"
            yield finding("zero-gradient", fact, share=zero, clean=clean, images=len(x), where=name)
            return
        share, n = _agreement(probe, x, probe.y, gradient, probe.logits_at(x))
        if n >= FEWEST and share < AGREE:
            fact = f"on {share:.0%} of {n} images a step along the gradient raises the loss as it promises ({name})"
            yield finding("decoy-gradient", fact, share=share, images=n, where=name)
            return


def _as_promised(probe: Probe, x: Tensor) -> bool:
    """Whether each of the first `SCREENED` images of a place (N, C, H, W) has a gradient that a step confirms."""
    few, y = x[:SCREENED], probe.y[:SCREENED]
    return _agreement(probe, few, y, probe.slope(few, y), probe.logits_at(x, SCREENED)) == (1.0, SCREENED)


def _agreement(probe: Probe, x: Tensor, y: Tensor, gradient: Tensor, logits: Tensor) -> tuple[float, int]:
    """On what share of the images some step delivers what the gradient promises, and how many promise anything.

    ``logits`` (N, classes) are those of the images (N, C, H, W), and ``gradient`` is that of their log-odds.
    """
    before, resolved = log_odds(logits, y), RESOLVED * spread(logits)
    agrees = torch.zeros_like(y, dtype=torch.bool)
    promising = torch.zeros_like(agrees)
    for size in SCALES:
        left = (~agrees).nonzero().flatten()  # one scale is enough
        if not len(left):
            break
        start, along = x[left], gradient[left]
        step = (start + size * along.sign()).clamp(0, 1) - start
        promised = (along.double() * step.double()).flatten(1).sum(1)
        risen = log_odds(probe.logits(start + step), y[left]) - before[left]
        counts = promised > resolved
        agrees[left] = counts & (risen > LOW * promised) & (risen < HIGH * promised)
        promising[left] |= counts
    n = int(promising.sum())
    return (float(agrees.sum()) / n if n else 1.0), n
