"""Attacks of the audits' own on a few images: two along gradients, with different losses, and one by scores alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import Norm
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.points import share_of
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.search import score_search
from epsbench.harness.run.metrics import share_of
from epsbench.harness.statistics import mcnemar_exact

IMAGES, FEWEST = 48, 16  # attacked; with fewer there is no finding
STEPS, STEP = 15, 0.25  # the number of gradient steps and their size as a share of ε
SIGNIFICANT = 1e-3
SATURATED, UNSURE = 1 - 1e-4, 0.5  # median probabilities of the predicted class
MUCH = 0.15  # of the images; a smaller difference is not reported

Gradient = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reattacked:
    """Which of N attacked images each attack fools, by the judge's verdict."""

    cross_entropy: Tensor
    """By steps along the gradient of the cross-entropy, (N,)."""

    margin: Tensor
    """By steps along the gradient of the margin, (N,)."""

    search: Tensor
    """By scores alone, (N,); tried only where both others fail."""

    confidence: Tensor
    """The probability of the predicted class of each clean image, (N,)."""


def reattack(
    probe: Probe, attacked: Attacked, x: Tensor, y: Tensor, norm: Norm, eps: float, others: Tensor
) -> Reattacked:
    """Attack images ``x`` (N, C, H, W) that are classified correctly, as labels ``y`` (N,), at ``eps``.

    Gradients are those of the ``attacked`` form, as the recorded attack follows them. ``others`` (M, C, H, W) are
    further images, of any class: the search by scores tries steps towards them.
    """
    cross_entropy = by_cross_entropy(probe, attacked, x, y, norm, eps)
    margin = by_margin(probe, attacked, x, y, norm, eps)
    fooled = torch.zeros_like(margin)
    left = (cross_entropy & margin).nonzero().flatten()
    if len(left):
        fooled[left] = score_search(probe, x[left], y[left], norm, eps, others)
    confidence = probe.logits(x).softmax(1).amax(1)
    return Reattacked(~cross_entropy, ~margin, fooled, confidence)


def by_cross_entropy(probe: Probe, attacked: Attacked, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
    """Which images (N,) withstand steps along the gradient of the cross-entropy."""
    return along_gradient(probe, x, y, norm, eps, attacked.gradient)


def by_margin(probe: Probe, attacked: Attacked, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
    """Which images (N,) withstand steps along the gradient of the margin."""
    return along_gradient(probe, x, y, norm, eps, lambda at, labels: attacked.gradient_of(Margin(), at, labels))


def audit_reattack(result: Reattacked, fooled: Tensor, eps: float) -> Iterator[Finding]:
    """What the attacks of the audits fool, beyond the images (N,) that the recorded attack has ``fooled`` at ``eps``.

    Without those the finding would doubt a number that already counts them.
    """
    n = len(fooled)
    if n < FEWEST:
        return
    gained = int((result.margin & ~result.cross_entropy & ~fooled).sum())
    lost = int((result.cross_entropy & ~result.margin).sum())
    if gained - lost > MUCH * n and mcnemar_exact(gained, lost) < SIGNIFICANT:
        shares = {"cross_entropy": share_of(result.cross_entropy), "margin": share_of(result.margin)}
        fact = (
            f"{STEPS} steps fool {shares['cross_entropy']:.0%} by the cross-entropy, {shares['margin']:.0%} by margin"
        )
        confidence = float(result.confidence.median())
        cause, remedy = _why_margin(confidence)
        yield finding("margin-beats-cross-entropy", f"{fact}: {cause}", remedy=remedy, **shares, images=n, eps=eps,
                      confidence=confidence)  # fmt: skip
    more = result.search & ~fooled
    if int(more.sum()) > max(MUCH * n, FEWEST / 4):
        shares = {
            "recorded": share_of(fooled),
            "gradient": share_of(result.cross_entropy | result.margin),
            "search": share_of(more),
        }
        fact = (
            f"of {n} images, this attack fools {shares['recorded']:.0%}, gradient steps with two losses "
            f"{shares['gradient']:.0%}, and a short search without gradients {shares['search']:.0%} that neither fools"
        )
        yield finding("score-search-beats-gradient", fact, **shares, images=n, eps=eps)


def _why_margin(confidence: float) -> tuple[str, str]:
    """Why steps on the margin fool more images, by the median ``confidence`` of the clean ones, and what to do."""
    use = "use an attack with a margin loss"
    if confidence > SATURATED:
        return (
            f"the model is so sure (median probability {confidence:.6f}) that the cross-entropy is flat",
            f"divide the logits by their scale, or {use}",
        )
    if confidence < UNSURE:
        return (
            f"the model is unsure (median probability {confidence:.0%}), and the cross-entropy leads to all other "
            "classes at once",
            f"{use}, and train the model longer if it should be surer",
        )
    return "the cross-entropy leads elsewhere than to the nearest class", use


def along_gradient(probe: Probe, x: Tensor, y: Tensor, norm: Norm, eps: float, gradient: Gradient) -> Tensor:
    """Which images (N,) withstand projected steps along ``gradient``, at every step."""
    radius = x.new_full((len(x), 1, 1, 1), eps)
    x_adv, stands = x, torch.ones_like(y, dtype=torch.bool)
    for _ in range(STEPS):
        left = stands.nonzero().flatten()
        if not len(left):
            break
        at, start, ball = x_adv[left], x[left], radius[left]
        moved = at + STEP * ball * norm.direction(gradient(at, y[left]))
        at = norm.into_ball(start, moved, ball)
        x_adv = x_adv.index_copy(0, left, at)
        stands = stands.index_copy(0, left, probe.logits(at).argmax(1) == y[left])
    return stands
