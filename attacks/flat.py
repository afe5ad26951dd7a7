"""Networks whose logits hardly change, for attacks that weigh the margin against the size of the change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epsbench.attacks.norms.linf import LInf
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor

FLAT = 1e-3
"""The largest entry of the margin's gradient at the image. Below it, what a change costs outweighs what it gains: on
logits of a size of 1e-6, a point would never leave the image."""


def lift(rows: Rows, answer: Answer, before: Tensor) -> Tensor:
    """What the margin is multiplied by, (N,): 1, or more where its gradient at the image is below `FLAT`.

    The first answer decides; ``before`` (N,) is what it decided.
    """
    assert answer.gradient is not None
    slope = LInf().size(answer.gradient)
    wanted = (FLAT / slope).clamp_min(1.0).masked_fill(slope == 0, 1.0)
    return wanted.where(rows.step == 0, before)
