"""The nearest point of the ball and of the box."""

from __future__ import annotations

from torch import Tensor

from epsbench.attacks.norms import Norm


def into_ball(norm: Norm, x: Tensor, x_adv: Tensor, eps: Tensor) -> Tensor:
    """The nearest point to ``x_adv`` of the ε-ball around ``x`` and of the box [0, 1]; a new tensor."""
    return norm.within(norm.region(x, eps), x_adv, eps)
