"""A short attack by scores alone: steps towards other images, stripes, and squares of random sign.

The squares are those of Andriushchenko et al. (2020), with few queries and a fixed schedule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import Norm
from epsbench.harness.run.audits.probe import Probe, log_odds
from epsbench.harness.run.noise import KeyedNoise

TOWARDS, STRIPES, SQUARES = 8, 4, 120  # queries of each kind
AT_ONCE = 2  # squares in a pass: of a few images, a pass of twice as many takes little longer
LARGEST, SMALLEST = 0.5, 0.15  # side of a square as a share of the image's
# After so many squares, images leave where the search has come less than this share of the way that steps along the
# gradient have come: each further query gains less than those before, and where gradients are masked, queries lead. Of
# some 900 images of tests/run/audits that the search fools, the lowest shares were 0.51 before the first square, 0.69
# after 12 and 24, and all but three were above these limits.
BEHIND = {0: 0.4, 6: 0.5, 12: 0.7, 24: 0.8, 36: 0.9}
# From so many squares on, those leave that would not come far enough if further queries gained as much as those before.
EARLY, QUERIES = 24, TOWARDS + STRIPES + SQUARES
MARGIN = Margin()


def score_search(
    probe: Probe, x: Tensor, y: Tensor, norm: Norm, eps: float, others: Tensor, reached: Tensor | None = None
) -> Tensor:
    """Which images (N,) the search fools. The same images give the same answer, in any number.

    ``reached`` (N,) is the highest `Margin` of steps along the gradient, NaN where it is not known.
    """
    radius = x.new_full((len(x), 1, 1, 1), eps)
    rows = torch.arange(len(x), device=x.device)
    noise = KeyedNoise(0, rows, torch.zeros_like(rows))
    logits = probe.logits(x)
    best, best_loss = x.clone(), log_odds(logits, y)
    start = MARGIN(logits, y)
    best_margin = start.clone()
    fooled = torch.zeros_like(y, dtype=torch.bool)
    searched = ~fooled

    def offer(*candidates: Tensor) -> None:
        """Ask about candidates (N, C, H, W), all in one pass."""
        at = searched.nonzero().flatten()
        if not len(at):
            return
        moved = [norm.into_ball(x[at], each[at], radius[at]) for each in candidates]
        asked = probe.logits(torch.cat(moved)).split(len(at))
        for images, logits in zip(moved, asked, strict=True):
            loss = log_odds(logits, y[at])
            better = loss > best_loss[at]
            best[at[better]], best_loss[at[better]] = images[better], loss[better]
            best_margin[at] = torch.maximum(best_margin[at], MARGIN(logits, y[at]))
            fooled[at] |= logits.argmax(1) != y[at]
        searched[at] = ~fooled[at]

    stripes = [(noise.uniform(x.shape[1], 1, x.shape[3]) - 0.5).sign() for _ in range(STRIPES)]
    offer(*_towards(probe, x, y, others), *(x + radius * norm.direction(each.expand_as(x)) for each in stripes))
    for step in range(0, SQUARES, AT_ONCE):
        if step in BEHIND and reached is not None:
            searched &= ~(best_margin - start < BEHIND[step] * (reached - start))
        if step >= EARLY:
            searched &= ~(start + (best_margin - start) * (QUERIES / (TOWARDS + STRIPES + step)) < 0)
        if not bool(searched.any()):
            break
        side = LARGEST + (SMALLEST - LARGEST) * step / SQUARES
        offer(*(_with_square(best, x, noise, norm, radius, side) for _ in range(AT_ONCE)))
    return fooled


def _with_square(best: Tensor, x: Tensor, noise: KeyedNoise, norm: Norm, radius: Tensor, side: float) -> Tensor:
    """``best`` with a square of random sign in each channel, as far from ``x`` as the ball lets it."""
    channels, height, width = x.shape[1:]
    h, w = max(1, round(side * height)), max(1, round(side * width))
    corner = noise.uniform(2)
    top, left = (corner[:, 0] * (height - h + 1)).long(), (corner[:, 1] * (width - w + 1)).long()
    down, across = (torch.arange(n, device=x.device) for n in (height, width))
    inside = ((down >= top[:, None]) & (down < top[:, None] + h))[:, None, :, None]
    inside = inside & ((across >= left[:, None]) & (across < left[:, None] + w))[:, None, None, :]
    signs = (noise.uniform(channels, 1, 1) - 0.5).sign() * inside
    if norm.name == "linf":
        return torch.where(inside, x + radius * signs, best)
    return best + radius * norm.direction(signs.expand_as(x).contiguous())


def _towards(probe: Probe, x: Tensor, y: Tensor, others: Tensor) -> list[Tensor]:
    """The nearest images that the model puts in another class: a model that remembers images changes its mind there."""
    if not len(others):
        return []
    classes = probe.logits_at(others).argmax(1)
    distance = torch.cdist(x.flatten(1), others.flatten(1))
    distance = distance.masked_fill(classes[None] == y[:, None], torch.inf)
    nearest = distance.topk(min(TOWARDS, len(others)), largest=False)
    targets = [others[nearest.indices[:, k]] for k in range(nearest.indices.shape[1])]
    known = [nearest.values[:, k].isfinite().view(-1, 1, 1, 1) for k in range(len(targets))]
    return [torch.where(here, target, x) for here, target in zip(known, targets, strict=True)]
