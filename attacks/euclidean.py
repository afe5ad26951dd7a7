"""Steps of a Euclidean length, in few passes over the images. Nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epsbench.attacks.norms.base import per_row

if TYPE_CHECKING:
    from torch import Tensor


def stepped(x: Tensor, gradient: Tensor, length: Tensor) -> Tensor:
    """``x`` (N, C, H, W) moved by ``length`` (N,) along a gradient of the same shape; a new tensor.

    Where the whole gradient is 0, nothing moves.
    """
    # Divide by the largest entry first: squares of tiny gradients would underflow to 0.
    scaled = gradient / per_row(gradient.flatten(1).abs().amax(1)).clamp_min(1e-38)
    return scaled.mul_(per_row(length / scaled.flatten(1).norm(dim=1).clamp_min(1e-12))).add_(x)


def free(x: Tensor, gradient: Tensor) -> Tensor:
    """`epsbench.attacks.norms.base.movable`: the gradient (N, C, H, W) without pixels at the face that it points to.

    By arithmetic, which takes a CPU a third of the time of masks.
    """
    room = gradient.sign().add_(x).clamp_(0.0, 1.0).sub_(x)
    return room.sign_().abs_().mul_(gradient)
