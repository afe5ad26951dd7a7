"""Where the judge's class changes on the way from a clean image to an adversarial one."""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.attacks.losses import at_class, best_other
from epsbench.attacks.norms.base import per_row
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.scale import scale

CLOSE = 2e-5
"""Of the distance: how near the change of class must be."""

_ROUNDS = 16  # at most; the margin is nearly linear on so short a way, so four are usual, and two after a good guess
_SURE = 2.0**-20  # of the `scale` of the logits: a smaller margin may have another sign when it is computed again
TIE = -(2.0**-126)
"""The lead where the true class ties with another one and does not win: the first of several classes does. Networks
whose logits are rounded or cut off tie often. It is the least normal float32, so 0 alone tells a tie that is won."""


def nearest_on_the_line(
    judge: Judge,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    batch: int,
    examples: Tensor,
    leads: tuple[Tensor, Tensor],
    guess: Tensor | None = None,
    close: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The nearest points (N, C, H, W) to ``x`` on the lines to ``x_adv`` that are known to fool the judge, and the
    `lead` there, (N,).

    ``x_adv`` fools, ``x`` does not: ``leads`` are the leads at both, (N,). The share of the way is bracketed by a
    secant search (the Illinois variant of regula falsi), whose every third round halves the bracket instead, until the
    bracket is as narrow as ``close`` (N,), a share of the distance; by default `CLOSE`. ``guess`` (N,) is the share of
    the way where the class is expected to change, or NaN: the first two rounds look beside it. ``examples`` (N,) are
    the images' places in their split.

    A tie on the way fools only where ``x_adv`` is one (`TIE`). Elsewhere two logits may agree by chance, and not when
    they are computed again. Ties tell nothing of how far the change is, so that bracket is halved every time.
    """
    best, high = x_adv.clone(), x.new_ones(len(x))
    narrow = torch.full_like(high, CLOSE) if close is None else close
    low = torch.zeros_like(high)
    below, above = (each.clone() for each in leads)
    reached, tied = above.clone(), above == TIE
    rows = ((below >= 0) & (above < 0)).nonzero().flatten()  # 0: a tie that the true class wins
    for number in range(_ROUNDS):
        rows = rows[high[rows] - low[rows] > narrow[rows] * high[rows]]
        if not len(rows):
            break
        near, far, at_near, at_far = low[rows], high[rows], below[rows], above[rows]
        halves = number % 3 == 2 and (guess is None or number > 2)  # a guess that missed was near, all the same
        secant = (at_near / (at_near - at_far)).masked_fill(tied[rows], 0.5)
        share = near + (far - near) * (0.5 if halves else secant)
        # A little beyond the estimate, so that the end that fools comes close, too.
        share = (share + 0.5 * narrow[rows] * far).clamp(near + 0.01 * (far - near), far - 0.01 * (far - near))
        if guess is not None and number < 2:
            beside = guess[rows] * (1 + (0.8 * number - 0.4) * narrow[rows])
            share = beside.where((beside > near) & (beside < far), share)
        point = (x[rows] + per_row(share) * (x_adv[rows] - x[rows])).clamp_(0.0, 1.0)
        logits, predicted = judge.verdict(point, y[rows], batch, examples[rows])
        margin = lead_by(judge, logits, predicted, y[rows], tied[rows])
        fools = margin < 0
        best[rows[fools]], reached[rows[fools]] = point[fools], margin[fools]
        # Illinois: the value of an end that stays is halved, so that the next estimate comes closer to it.
        below[rows], above[rows] = (at_near / 2).where(fools, margin), margin.where(fools, at_far / 2)
        low[rows], high[rows] = near.where(fools, share), share.where(fools, far)
    return best, reached


def lead(judge: Judge, x: Tensor, y: Tensor, batch: int, examples: Tensor) -> Tensor:
    """How far the true class leads, (N,): above 0, unless another one leads by more than rounding can explain.

    A majority of passes decides the sign where the model is random.
    """
    return lead_by(judge, *judge.verdict(x, y, batch, examples), y)


def lead_by(judge: Judge, logits: Tensor, predicted: Tensor, y: Tensor, ties: Tensor | None = None) -> Tensor:
    """`lead` by a verdict's logits (N, K) and class (N,); `TIE` for a tie that is lost, in the rows ``ties`` (N,)."""
    margin = lead_of(logits, y)
    if judge.votes > 1:
        margin = margin.abs().where(predicted == y, -margin.abs())
    far = margin.where(margin < -_SURE * scale(logits), margin.abs())
    return far if ties is None else far.masked_fill(ties & lost_ties(margin, predicted != y), TIE)


def lost_ties(lead: Tensor, wrong: Tensor) -> Tensor:
    """Where the true class leads by nothing (N,), and another one is predicted (``wrong``), bool."""
    return (lead == 0) & wrong


def lead_of(logits: Tensor, y: Tensor) -> Tensor:
    """How far the true class (N,) leads the best other one by these logits (N, K)."""
    return at_class(logits, y) - best_other(logits, y)
