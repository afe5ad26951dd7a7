"""Where the judge's class changes on the way from a clean image to an adversarial one."""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.attacks.losses import at_class, best_other
from epsbench.attacks.norms.base import per_row
from epsbench.harness.run.attack.judge import Judge

_ROUNDS = 12  # at most; the margin is nearly linear on so short a way, so four are usual
_CLOSE = 2e-5  # of the distance: how near the change of class must be
_SURE = 2.0**-20  # of the largest logit: a smaller margin may have another sign when it is computed again


def nearest_on_the_line(
    judge: Judge, x: Tensor, x_adv: Tensor, y: Tensor, batch: int, examples: Tensor | None = None
) -> Tensor:
    """The nearest points (N, C, H, W) to ``x`` on the lines to ``x_adv`` that are known to fool the judge.

    ``x_adv`` fools, ``x`` does not. The share of the way is bracketed by a secant search (the Illinois variant of
    regula falsi), whose every third round halves the bracket instead. ``examples`` (N,) are the places of the images
    in their split.
    """
    examples = torch.arange(len(x), device=x.device) if examples is None else examples
    best, high = x_adv.clone(), x.new_ones(len(x))
    low = torch.zeros_like(high)
    below, above = (_margin(judge, images, y, batch, examples) for images in (x, x_adv))
    rows = ((below > 0) & (above < 0)).nonzero().flatten()
    for number in range(_ROUNDS):
        rows = rows[high[rows] - low[rows] > _CLOSE * high[rows]]
        if not len(rows):
            break
        near, far, at_near, at_far = low[rows], high[rows], below[rows], above[rows]
        share = near + (far - near) * (0.5 if number % 3 == 2 else at_near / (at_near - at_far))
        # A little beyond the estimate, so that the end that fools comes close, too.
        share = (share + 0.5 * _CLOSE * far).clamp(near + 0.01 * (far - near), far - 0.01 * (far - near))
        point = (x[rows] + per_row(share) * (x_adv[rows] - x[rows])).clamp_(0.0, 1.0)
        margin = _margin(judge, point, y[rows], batch, examples[rows])
        fools = margin < 0
        best[rows[fools]] = point[fools]
        # Illinois: the value of an end that stays is halved, so that the next estimate comes closer to it.
        below[rows], above[rows] = (at_near / 2).where(fools, margin), margin.where(fools, at_far / 2)
        low[rows], high[rows] = near.where(fools, share), share.where(fools, far)
    return best


def _margin(judge: Judge, x: Tensor, y: Tensor, batch: int, examples: Tensor) -> Tensor:
    """How far the true class leads, (N,): above 0, unless another one leads by more than rounding can explain.

    A majority of passes decides the sign where the model is random.
    """
    logits, predicted = judge.verdict(x, y, batch, examples)
    margin = at_class(logits, y) - best_other(logits, y)
    if judge.votes > 1:
        margin = margin.abs().where(predicted == y, -margin.abs())
    return margin.where(margin < -_SURE * logits.abs().amax(1), margin.abs())
