"""Attacks of the audits' own on a few images: two along gradients, with different losses, and one by scores alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import Norm
from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.search import score_search
from epsbench.harness.statistics import mcnemar_exact

IMAGES, FEWEST = 48, 16  # attacked; with fewer there is no finding
STEPS, STEP = 15, 0.25  # the number of gradient steps and their size as a share of ε
SIGNIFICANT = 1e-3
MUCH = 0.15  # of the images; a smaller difference is not reported

Gradient = Callable[[Tensor, Tensor], Tensor]


def audit_reattack(probe: Probe, x: Tensor, y: Tensor, norm: Norm, eps: float, others: Tensor) -> Iterator[Finding]:
    """Attack images ``x`` (N, C, H, W) that are classified correctly, as labels ``y`` (N,), at ``eps``.

    ``others`` (M, C, H, W) are further images, of any class: the search by scores tries steps towards them.
    """
    if len(x) < FEWEST:
        return
    stands = along_gradient(probe, x, y, norm, eps, probe.gradient)
    by_margin = along_gradient(probe, x, y, norm, eps, lambda at, labels: margin_gradient(probe, at, labels))
    gained, lost = int((stands & ~by_margin).sum()), int((by_margin & ~stands).sum())
    if gained - lost > MUCH * len(x) and mcnemar_exact(gained, lost) < SIGNIFICANT:
        shares = {"cross_entropy": _share(~stands), "margin": _share(~by_margin)}
        fact = (
            f"{STEPS} steps fool {shares['cross_entropy']:.0%} by the cross-entropy, {shares['margin']:.0%} by margin"
        )
        yield finding("margin-beats-cross-entropy", fact, **shares, images=len(x), eps=eps)
    withstood = stands & by_margin
    if not bool(withstood.any()):
        return
    fooled = score_search(probe, x[withstood], y[withstood], norm, eps, others)
    if int(fooled.sum()) > max(MUCH * len(x), FEWEST / 4):
        shares = {"gradient": _share(~withstood), "search": float(fooled.sum()) / len(x)}
        fact = (
            f"of {len(x)} images, gradient steps with two losses fool {shares['gradient']:.0%}, and a short search "
            f"without gradients another {shares['search']:.0%}"
        )
        yield finding("score-search-beats-gradient", fact, **shares, images=len(x), eps=eps)


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


def margin_gradient(probe: Probe, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the best other logit minus the true one, (N, C, H, W); no softmax, so nothing saturates."""
    return probe.gradient_of(Margin(), x, y)


def _share(rows: Tensor) -> float:
    return float(rows.float().mean())
