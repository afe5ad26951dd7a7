"""The nearest point of the ball and of the box."""

from __future__ import annotations

from torch import Tensor

from epsbench.attacks.base import State
from epsbench.attacks.norms import LInf, Norm


def allowed(norm: Norm, x: Tensor, eps: Tensor) -> State:
    """Where adversarial images of ``x`` (N, C, H, W) may lie at ε (N, 1, 1, 1): tensors with a row an image.

    The ε-ball of L∞ and the box [0, 1] meet in a box, so its two corners are enough, and a step is projected in one
    pass (see `within`).
    """
    if type(norm) is LInf:
        return {"low": (x - eps).clamp_(min=0.0), "high": (x + eps).clamp_(max=1.0)}
    return {"x": x}


def within(norm: Norm, region: State, x_adv: Tensor, eps: Tensor) -> Tensor:
    """The nearest point to ``x_adv`` of the ε-ball and of the box, as `allowed` gives them; a new tensor."""
    if type(norm) is LInf:
        return x_adv.clamp(region["low"], region["high"])
    x = region["x"]
    return (x + norm.project(x_adv - x, eps)).clamp_(0.0, 1.0)


def into_ball(norm: Norm, x: Tensor, x_adv: Tensor, eps: Tensor) -> Tensor:
    """The nearest point to ``x_adv`` of the ε-ball around ``x`` and of the box [0, 1]."""
    return within(norm, allowed(norm, x, eps), x_adv, eps)
