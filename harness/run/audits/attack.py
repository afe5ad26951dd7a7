"""Checks of one attack at one ε: did it move, did it stay where it must, did it finish?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from attacks.base import Attack, GradientAttack
from harness.records import Finding
from harness.run.audits.codes import found
from harness.run.audits.probe import log_odds
from harness.run.ledger import Outcome, Targets
from harness.run.memory import in_chunks
from harness.run.step import advance, into_ball
from harness.run.victim import Victim

# float32 rounding of x + δ moves a pixel by at most 6e-8; projections under L2 sum many of those.
TOLERANCE = 1e-5
UNMOVED, NO_OP = 0.01, 0.5  # shares of images returned as they were
STILL_RISING = 0.2  # the last step's share of the whole rise: 0.1 for ten equal steps, about 0 once converged
FEWEST, MOST, ONE_IN = 8, 64, 50  # survivors followed: one in so many, so that it costs 2 % of what they cost
SHORT = 0.9  # of the images that withstood
FEW_LOST = 0.01


def audit_outcome(outcome: Outcome, clean_loss: np.ndarray) -> list[Finding]:
    """Findings about one attack at one ε; ``clean_loss`` (n,) is the judge's cross-entropy before it."""
    if not outcome.attacked.any():
        return []
    broken = list(_images_not_finite(outcome))
    return broken or [*_outside(outcome), *_no_op(outcome, clean_loss), *_wasted(outcome)]


def _images_not_finite(outcome: Outcome) -> Iterator[Finding]:
    broken = int((~np.isfinite(outcome.size[outcome.attacked])).sum())
    if broken:
        fact = f"{broken} adversarial images hold NaN or infinity"
        yield found("not-finite", fact, images=broken, of=int(outcome.attacked.sum()))


def _outside(outcome: Outcome) -> Iterator[Finding]:
    eps, farthest = float(outcome.eps), float(np.nanmax(outcome.size, initial=0.0))
    if farthest > eps + TOLERANCE:
        yield found("outside-ball", f"a perturbation of size {farthest:.6g} at ε = {eps:.6g}", size=farthest, eps=eps)
    low, high = float(np.nanmin(outcome.low, initial=0.0)), float(np.nanmax(outcome.high, initial=1.0))
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        yield found("outside-box", f"adversarial pixels reach from {low:.6g} to {high:.6g}", low=low, high=high)


def _no_op(outcome: Outcome, clean_loss: np.ndarray) -> Iterator[Finding]:
    if outcome.eps == 0:
        return
    unmoved = float((outcome.size[outcome.attacked] == 0).mean())
    if unmoved > UNMOVED:
        fact = f"the attack returned {unmoved:.1%} of the images as they were"
        yield found("no-op" if unmoved >= NO_OP else "unmoved", fact, share=unmoved)
    rise = outcome.loss[outcome.attacked] - clean_loss[outcome.attacked]
    follows_gradients = outcome.backwards + outcome.shared_backwards > 0
    if follows_gradients and unmoved < NO_OP and not rise.mean() > 0:
        change = float(rise.mean())
        yield found("no-ascent", f"the mean loss changed by {change:.3g}", change=change)


def _wasted(outcome: Outcome) -> Iterator[Finding]:
    """What was seen inside an attack that brings its own loop."""
    if outcome.lost > FEW_LOST * outcome.watched:
        fact = f"of {outcome.watched} images watched, {outcome.lost} fooled on the way and not at the end"
        yield found("lost-iterate", fact, images=outcome.lost, of=outcome.watched)
    if outcome.withstood >= FEWEST and outcome.short >= SHORT * outcome.withstood:
        fact = f"on {outcome.short} of {outcome.withstood} images that withstood, the last gradient is not used"
        yield found("one-step-short", fact, images=outcome.short, of=outcome.withstood)


def audit_convergence(
    attack: Attack | GradientAttack, outcome: Outcome, victim: Victim, targets: Targets, batch: int, seed: int
) -> list[Finding]:
    """Take the steps again on a few images that withstood: does the loss still rise at the last one?"""
    survivors = np.flatnonzero(outcome.attacked & ~outcome.fooled)
    count = min(max(FEWEST, len(survivors) // ONE_IN), MOST)
    if not isinstance(attack, GradientAttack) or attack.steps == 1 or len(survivors) < 2 * count or outcome.eps == 0:
        return []
    at = torch.from_numpy(survivors[np.linspace(0, len(survivors) - 1, count).astype(int)]).to(targets.labels.device)
    path = in_chunks(lambda rows: _path(attack, float(outcome.eps), victim, targets, at[rows], seed), count, batch)
    start, before, end = path.mean(0)[[0, -2, -1]].tolist()
    if end - start > 0 and end - before > STILL_RISING * (end - start):
        fact = f"{(end - before) / (end - start):.0%} of what the loss rises by in {attack.steps} steps is in the last"
        return [found("unconverged", fact, start=start, before_last=before, end=end, images=count)]
    return []


def _path(
    attack: GradientAttack, eps: float, victim: Victim, targets: Targets, at: torch.Tensor, seed: int
) -> torch.Tensor:
    """Log-odds (k, steps + 1) of the targets ``at`` before, between and after the attack's steps."""
    x, y = targets.pixels(at), targets.labels[at]
    radius = x.new_full((len(x), 1, 1, 1), eps)
    x_adv, state = x.clone(), attack.state(x)
    if attack.random_start:
        noise = targets.noise(seed, at, torch.zeros_like(at))
        x_adv = into_ball(attack.norm, x, x + attack.norm.start(noise, x, radius), radius)
    path = []
    for step in range(attack.steps):
        gradient, logits = victim.bare_gradient(x_adv, y)
        path.append(log_odds(logits, y))
        x_adv, state = advance(attack, x, x_adv, gradient, radius, torch.full_like(at, step).view(-1, 1, 1, 1), state)
    path.append(log_odds(victim.bare_gradient(x_adv, y)[1], y))
    return torch.stack(path, 1)
