"""The nearest point of the ball and of the box."""

from __future__ import annotations

from torch import Tensor

from epsbench.attacks.base import State
from epsbench.attacks.norms.base import Norm
from epsbench.attacks.norms.linf import LInf


def reach(norm: Norm, x: Tensor, eps: Tensor) -> State:
    """What `within` must know of images (N, C, H, W) and ε (N, 1, 1, 1): tensors with a row an image.

    The ε-ball of L∞ and the box [0, 1] meet in a box, so its two corners are enough; a step then projects in one pass.
    """
    if type(norm) is LInf:
        return {"low": (x - eps).clamp_(min=0.0), "high": (x + eps).clamp_(max=1.0)}
    return {"x": x}


def within(norm: Norm, reached: State, x_adv: Tensor, eps: Tensor) -> Tensor:
    """The nearest point to ``x_adv`` of the ε-ball and of the box, told by `reach`; a tensor of its own."""
    if type(norm) is LInf:
        return x_adv.clamp(reached["low"], reached["high"])
    x = reached["x"]
    return (x + norm.project(x_adv - x, eps)).clamp_(0.0, 1.0)


def into_ball(norm: Norm, x: Tensor, x_adv: Tensor, eps: Tensor) -> Tensor:
    """The nearest point of the ε-ball around ``x`` and of the box [0, 1] to ``x_adv``."""
    return within(norm, reach(norm, x, eps), x_adv, eps)
