"""Finds gradients of exactly 0 at pixels that are 0 or 1: steps along them leave these pixels where they are.

A clamp of the input does that, though it changes no image: some versions of torch give it the derivative 0 at its ends.
So does any function with a kink there, such as |x|. The model is what it seems to be, and its robust accuracy is not.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from epsbench.attacks.norms.base import movable
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.probe import Probe

INSIDE = 1e-3  # how far pixels are moved into the box: a quarter of a level of a byte
LOST = 0.1  # of the rise that a step along the signs promises, on average over the images
FEWEST = 16  # images; with fewer there is no finding


def audit_bounds(probe: Probe, gradient: Tensor) -> Iterator[Finding]:
    """Compare the ``gradient`` (N, C, H, W) at the probe with that at the same images, moved a little into the box."""
    x = probe.x
    moving = gradient.flatten(1).abs().amax(1) > 0  # of images without any, other findings speak
    still = ((x <= 0) | (x >= 1)) & (gradient == 0) & moving.view(-1, 1, 1, 1)
    if int(moving.sum()) < FEWEST or not bool(still.any()):
        return
    inside = probe.gradient(x.clamp(INSIDE, 1 - INSIDE), probe.y)
    promised = movable(x, inside).abs()
    lost = (promised * still).flatten(1).sum(1) / promised.flatten(1).sum(1).clamp_min(1e-30)
    share = float(lost[moving].mean())
    if share > LOST:
        fact = (
            f"{share:.0%} of the rise that steps along the gradient promise {INSIDE:g} inside the box are lost at its "
            "edge, where the gradients of pixels that are 0 or 1 are exactly 0"
        )
        yield finding("stuck-at-bounds", fact, share=share, images=int(moving.sum()))
