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


def loss_jacobian(
    network: Callable[[Tensor], Tensor], x: Tensor, loss: Loss, y: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Gradients (N, K, C, H, W) at pixels ``x`` of a loss towards each of K classes, and the logits (N, K).

    One forward pass, and a backward pass for every class but the label ``y`` (N,), whose gradient is 0.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = network(x).float()
        gradients = logits.new_zeros(len(x), classes, *x.shape[1:])
        everyone = torch.arange(len(x), device=x.device)
        for number in range(classes - 1):
            target = number + (number >= y).long()
            last = number == classes - 2
            (gradient,) = torch.autograd.grad(loss(logits, y, target).sum(), x, retain_graph=not last)
            gradients[everyone, target] = gradient.float()
    return gradients, logits.detach()


def input_gradient(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`loss_gradient` of the cross-entropy with labels ``y`` (N,)."""
    return loss_gradient(network, x, CROSS_ENTROPY, (y,))
