"""Checks of one attack at one ε: did it change the images, stay in the ball and the box, and converge?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from epsbench.attacks.base import Attack
from epsbench.attacks.rows import Answer, Rows
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.probe import log_odds

# An image further outside its ball or its box than this, or than this part of a radius above 1, was not projected
# correctly. The limit is ten times `schedule.ROUNDING`, which decides which ball an image counts for: a finding here
# voids the cell, so rounding alone must never reach it.
OUTSIDE = 1e-5
UNMOVED, NO_OP = 0.01, 0.5  # shares of unchanged images: a warning above the first, void from the second on
STILL_RISING = 0.2  # the share of the whole rise in loss that one more step adds; about 0 once converged
FEWEST, MOST_STEPPED = 8, 32  # images that were not fooled; with fewer there is no finding, and more are not asked
# One more step is first taken on so many of them, and on all where it adds more than this share of the rise, or where
# nothing has risen.
SCREENED, DOUBTED = 12, 0.1
SHORT = 0.9  # share of those whose last gradient was not used
FEW_LOST = 0.01  # share of images that were fooled on the way; fewer are not reported
FEW_BEYOND, MOST = 0.01, 0.5  # shares of returned images that are beyond the ball, and that are no pixels


def audit_outcome(outcome: Outcome, clean_loss: np.ndarray | None) -> list[Finding]:
    """Findings about one attack at one ε.

    ``clean_loss`` (n,) is the judge's cross-entropy before the attack. It is None where the attack follows another
    model's gradients: such an attack need not raise the judge's loss.
    """
    if not outcome.attacked.any():
        return []
    findings = list(_not_finite(outcome)) or [
        *_returned(outcome), *_outside(outcome), *_no_op(outcome, clean_loss), *_wasted(outcome)
    ]  # fmt: skip
    return [*findings, *_unkeyed(outcome)]


def _not_finite(outcome: Outcome) -> Iterator[Finding]:
    places = (("adversarial images hold", outcome.size), ("adversarial images give logits that are", outcome.loss))
    for what, values in places:
        broken = int((~np.isfinite(values[outcome.attacked])).sum())
        if broken:
            yield finding(
                "not-finite", f"{broken} {what} NaN or infinity", images=broken, of=int(outcome.attacked.sum())
            )
            return


def _returned(outcome: Outcome) -> Iterator[Finding]:
    """What an attack with a loop of its own returned, before it was projected."""
    returned = outcome.returned
    if returned.no_pixels > MOST * returned.images:
        fact = f"{returned.no_pixels} of {returned.images} returned images have values far outside [0, 1]"
        yield finding("not-pixels", fact, images=returned.no_pixels, of=returned.images)
    elif returned.beyond_ball > FEW_BEYOND * returned.images:
        fact = f"{returned.beyond_ball} of {returned.images} returned images are further than ε from the original"
        yield finding("beyond-ball", fact, images=returned.beyond_ball, of=returned.images)


def _unkeyed(outcome: Outcome) -> Iterator[Finding]:
    if calls := outcome.returned.unkeyed:
        fact = (
            "the attack draws from a global random generator, so its verdicts depend on the batch and on what ran "
            "before"
        )
        yield finding("unkeyed-noise", fact, calls=calls)


def _outside(outcome: Outcome) -> Iterator[Finding]:
    eps, farthest = float(outcome.eps), float(np.nanmax(outcome.size, initial=0.0))
    if farthest > eps + OUTSIDE * max(1.0, eps):
        yield finding("outside-ball", f"a perturbation of size {farthest:.6g} at ε = {eps:.6g}", size=farthest, eps=eps)
    low, high = float(np.nanmin(outcome.low, initial=0.0)), float(np.nanmax(outcome.high, initial=1.0))
    if low < -OUTSIDE or high > 1 + OUTSIDE:
        yield finding("outside-box", f"adversarial pixels reach from {low:.6g} to {high:.6g}", low=low, high=high)


def _no_op(outcome: Outcome, clean_loss: np.ndarray | None) -> Iterator[Finding]:
    if outcome.eps == 0:
        return
    moved = outcome.size[outcome.attacked] != 0
    unmoved = float((~moved).mean())
    if unmoved > UNMOVED:
        fact = f"the attack returned {unmoved:.1%} of the images unchanged"
        yield finding("no-op" if unmoved >= NO_OP and not _gives_up(outcome, moved) else "unmoved", fact, share=unmoved)
    if clean_loss is None:
        return
    rise = outcome.loss[outcome.attacked] - clean_loss[outcome.attacked]
    follows_gradients = outcome.gradients > 0
    if follows_gradients and unmoved < NO_OP and not rise.mean() > 0:
        change = float(rise.mean())
        yield finding("no-ascent", f"the mean loss changed by {change:.3g}", change=change)


def _gives_up(outcome: Outcome, moved: np.ndarray) -> bool:
    """Whether the attack returns the original wherever it ends without success, as those of some libraries do.

    What moved has fooled then. Where nothing moved, changed copies of all images were asked about, and none fooled.
    """
    if moved.any():
        return outcome.returned.images > 0 and bool(outcome.fooled[outcome.attacked][moved].all())
    return 0 < outcome.watched == outcome.returned.elsewhere and not outcome.lost


def _wasted(outcome: Outcome) -> Iterator[Finding]:
    """What was seen of an attack with a loop of its own."""
    if outcome.lost > FEW_LOST * outcome.watched:
        fact = f"{outcome.lost} of {outcome.watched} images fooled the model during the attack and not at its end"
        yield finding("lost-iterate", fact, images=outcome.lost, of=outcome.watched)
    if outcome.withstood >= FEWEST and outcome.short >= SHORT * outcome.withstood:
        fact = f"on {outcome.short} of {outcome.withstood} images that were not fooled, the last gradient is not used"
        yield finding("one-step-short", fact, images=outcome.short, of=outcome.withstood)


def stepped(outcome: Outcome, batch: int) -> Tensor:
    """Positions of at most ``batch`` and 32 of the kept images that were not fooled."""
    kept = len(outcome.images)
    survivors = np.flatnonzero(outcome.attacked[:kept] & ~outcome.fooled[:kept])
    return torch.from_numpy(survivors[: min(batch, MOST_STEPPED)])


def audit_convergence(
    attack: Attack, outcome: Outcome, victim: Victim, targets: Targets, chosen: Tensor
) -> list[Finding]:
    """Take one more step on the ``chosen`` images, positions (k,) as from `stepped`: does the loss still rise?

    An attack with state takes the step with a new state, without what it remembers of its path.
    """
    if (
        not attack.same_every_step
        or not attack.asks_at_the_point()
        or attack.budget() == 1
        or len(chosen) < FEWEST
        or outcome.eps == 0
    ):
        return []
    for few in (chosen[:SCREENED], chosen):
        start, end, beyond = _one_more_step(attack, outcome, victim, targets, few)
        if beyond - start > 0 and beyond - end <= DOUBTED * (beyond - start):
            return []
    if not (beyond - start > 0 and beyond - end > STILL_RISING * (beyond - start)):
        return []
    share = (beyond - end) / (beyond - start)
    fact = f"after {attack.budget()} steps, one more step adds {share:.0%} of the whole rise in loss"
    return [finding("unconverged", fact, start=start, end=end, one_more=beyond, images=len(chosen))]


def _one_more_step(
    attack: Attack, outcome: Outcome, victim: Victim, targets: Targets, chosen: Tensor
) -> tuple[float, float, float]:
    """The mean log-odds of the ``chosen`` images as they were, as the attack left them, and after one more step."""
    at = chosen.to(targets.labels.device)
    x, y, x_adv = targets.pixels(at), targets.labels[at], outcome.images[chosen].to(at.device)
    eps, first = x.new_full((len(x), 1, 1, 1), float(outcome.eps)), torch.zeros_like(y)
    rows = Rows(
        x=x, y=y, eps=eps, attempt=first, step=first + attack.budget() - 1, target=y, norm=attack.norm,
        region=attack.norm.region(x, eps), draw=lambda: targets.noise(0, at, first),
        clean=lambda: victim.bare_gradient(x, y)[1],
    )  # fmt: skip
    rows = replace(rows, target=attack.aim(rows))
    inputs = rows.inputs(attack.loss)
    gradient, logits = victim.bare_query(x_adv, attack.loss, *inputs)
    proposal, _ = attack.step(rows, Answer(x_adv, y, logits, gradient, attack.loss, inputs), attack.start(rows)[1])
    further = rows.project(proposal)
    with torch.no_grad():
        clean = victim.bare_logits(x).float() if targets.logits is None else targets.logits[at]
        beyond = victim.bare_logits(further).float()
    start, end, onward = (float(log_odds(each, y).mean()) for each in (clean, logits, beyond))
    return start, end, onward
