"""Checks of a classifier's gradients: does following them fool the model, or does it only look robust?

The signs of gradient masking are those of Athalye et al. (2018, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epsbench.attacks.norms import NORMS
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.probe import Probe, log_odds

FEW = 0.01  # a smaller share of examples without a gradient is not reported
ASCENDS = 0.8  # steps along a useful gradient beat a random step on at least this share; chance gives 0.5
STEPS = (1 / 255, 4 / 255, 16 / 255)
UNBOUNDED_STEP, UNBOUNDED_STEPS = 0.2, 12  # enough to reach every image in [0, 1]
FEWEST = 16  # examples; with fewer there is no finding
# Steps along the gradient are first compared with random ones on so many examples. Where they are better on all of
# them, they are better on most of the rest: by chance, they would be once in 4,000 times.
SCREENED = 12


def zero_share(gradient: Tensor) -> float:
    """The share of the N rows of a gradient (N, C, H, W) that are 0 everywhere."""
    return float((gradient.flatten(1).abs().amax(1) == 0).float().mean())


def broken_gradients(gradient: Tensor, where: str = "clean") -> Iterator[Finding]:
    """A finding if rows of a gradient (N, C, H, W), taken ``where`` the message says, hold NaN or infinity."""
    rows = int((~gradient.flatten(1).isfinite().all(1)).sum())
    if rows:
        fact = f"{rows} of {len(gradient)} gradients hold NaN or infinity ({where})"
        yield finding("gradient-not-finite", fact, images=rows, of=len(gradient), where=where)


def zero_gradients(shares: Mapping[str, float], precision: str) -> Iterator[Finding]:
    """Findings from the ``shares`` of zero gradients by precision, with float32; attacks use ``precision``."""
    if shares["float32"] > FEW:
        fact = f"{shares['float32']:.1%} of the examples have a gradient of exactly 0 in float32"
        yield finding("zero-gradient", fact, **shares)
    hidden = shares[precision] - shares["float32"]
    if hidden > FEW:
        fact = f"{hidden:.1%} of the examples have a gradient of exactly 0 in {precision} and not in float32"
        yield finding("precision-masked", fact, **shares)


def audit_gradients(probe: Probe, gradient: Tensor, logits: Tensor) -> list[Finding]:
    """Findings about the float32 ``gradient`` (N, C, H, W) and ``logits`` (N, classes) at the probe."""
    right = logits.argmax(1) == probe.y
    return [*_shattered(probe, gradient, logits), *_masked(probe, right, gradient, logits.shape[1])]


def _shattered(probe: Probe, gradient: Tensor, logits: Tensor) -> Iterator[Finding]:
    """Compare a small step along the gradient's sign with one along random signs, at several lengths."""
    moving = (gradient.flatten(1).abs().amax(1) > 0).nonzero().flatten()
    if len(moving) < FEWEST:
        return
    x, y, before = probe.x[moving], probe.y[moving], log_odds(logits[moving], probe.y[moving])
    generator = torch.Generator(x.device).manual_seed(0)
    ascent = gradient[moving].sign()
    chance = torch.randint(0, 2, x.shape, generator=generator, device=x.device, dtype=x.dtype) * 2 - 1

    def better(size: float, count: int) -> float:
        """The share of the first ``count`` examples on which the step along the gradient raises the loss more."""
        moved = [(x[:count] + size * way[:count]).clamp(0, 1) for way in (ascent, chance)]
        along, aside = (log_odds(each, y[:count]) - before[:count] for each in
                        probe.logits(torch.cat(moved)).split(len(moved[0])))  # fmt: skip
        return float((along > aside).float().mean())

    if better(STEPS[0], SCREENED) == 1:
        return
    shares = {}
    for size in STEPS:
        shares[f"{size * 255:.0f}/255"] = share = better(size, len(x))
        if share >= ASCENDS:  # one length is enough
            return
    fact = f"a step along the gradient beats a random one on {max(shares.values()):.0%} of the examples at best"
    yield finding("shattered", fact, **shares)


def _masked(probe: Probe, right: Tensor, clean: Tensor, classes: int) -> Iterator[Finding]:
    """Accuracy under sign steps that may go anywhere in [0, 1]: above chance only where gradients mislead.

    ``clean`` (N, C, H, W) is the gradient at the probe, and ``right`` (N,) the images that are classified correctly.
    """
    x, y = probe.x[right], probe.y[right]
    total = len(x)
    if total < FEWEST:
        return
    for step in range(UNBOUNDED_STEPS):
        gradient = probe.gradient(x, y) if step else clean[right]
        x = (x + UNBOUNDED_STEP * gradient.sign()).clamp(0, 1)
        stands = probe.logits(x).argmax(1) == y
        x, y = x[stands], y[stands]
        if not len(x):
            return
    share, chance = len(x) / total, 1 / classes
    if share > chance + 3 * math.sqrt(chance * (1 - chance) / total):
        fact = f"{share:.0%} of the examples withstand {UNBOUNDED_STEPS} gradient steps with ε = 1"
        yield finding("masked", fact, accuracy=share, chance=chance, examples=total)


def step_success(probe: Probe, norm: str, eps: float) -> tuple[int, int]:
    """How many of the probed images that are classified correctly one step of size ``eps`` fools, and of how many.

    The step follows the gradient of the log-odds, which does not underflow where logits are saturated.
    """
    ball = NORMS.get(norm)
    if ball is None:  # a norm of the user's own
        return 0, 0
    right = probe.logits(probe.x).argmax(1) == probe.y
    x, y = probe.x[right], probe.y[right]
    if not len(x):
        return 0, 0
    radius = x.new_full((len(x), 1, 1, 1), eps)
    x_adv = ball.into_ball(x, ball.step(x, probe.slope(x, y), radius), radius)
    return int((probe.logits(x_adv).argmax(1) != y).sum()), len(x)
