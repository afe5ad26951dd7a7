"""The gradient that an attack follows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epsbench.attacks.losses import CROSS_ENTROPY, Loss


def loss_gradient(
    network: Callable[[Tensor], Tensor], x: Tensor, loss: Loss, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Gradient of the summed loss at pixels ``x`` (N, C, H, W), and the logits (N, classes), both float32.

    A sum, never a mean: a mean divides by N before the backward pass, and a half-precision gradient of
    a confident example then rounds to exactly 0, which the sign turns into "robust".
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = network(x).float()
        (gradient,) = torch.autograd.grad(loss(logits, *inputs).sum(), x)
    return gradient.float(), logits.detach()


def input_gradient(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`loss_gradient` of the cross-entropy with labels ``y`` (N,)."""
    return loss_gradient(network, x, CROSS_ENTROPY, (y,))
