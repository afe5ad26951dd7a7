"""The gradient that an attack follows."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.attacks.losses import CROSS_ENTROPY, Loss
from epsbench.attacks.rows import likeliest_others

_ROWS_TOGETHER = 1152  # rows times classes in one backward pass; 128 images of ten classes
_NUMBERS_TOGETHER = 1 << 24  # pixels of their gradients: 64 MiB, of which the layers in between take some multiples


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
    network: Callable[[Tensor], Tensor], x: Tensor, loss: Loss, y: Tensor, count: int, *, together: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (N, M, C, H, W) at pixels ``x`` of a loss towards each of M classes, logits (N, K), and the classes.

    The classes (N, M) are the ``count`` most likely ones but the label ``y`` (N,). One forward pass, and a backward
    pass a class. Several classes go back ``together``, each layer one call: up to twice as fast for few rows. Raises
    what torch raises, and a `UserWarning`, where a layer's backward pass cannot take several: ask again class by class.
    """
    x = x.detach().requires_grad_(True)
    numbers = torch.arange(count, device=x.device)
    most = min(count, _ROWS_TOGETHER // max(1, len(x)), _NUMBERS_TOGETHER // max(1, x.numel())) if together else 1
    size = max(1, most)
    with torch.enable_grad():
        logits = network(x).float()
        classes = likeliest_others(logits.detach(), y, count)
        losses = torch.stack([loss(logits, y, target) for target in classes.unbind(1)])
        gradients = logits.new_empty(len(x), count, *x.shape[1:])
        for first in range(0, count, size):  # numbers of the host: it need not wait for the device
            some, last = numbers[first : first + size], first + size >= count
            gradient = _rows_of_jacobian(losses, x, some, together=together, retain=not last)
            gradients[:, first : first + size] = gradient.float().movedim(0, 1)
    return gradients, logits.detach(), classes


def _rows_of_jacobian(losses: Tensor, x: Tensor, some: Tensor, *, together: bool, retain: bool) -> Tensor:
    """The gradients (k, N, C, H, W) of ``some`` (k,) of the losses (M, N)."""
    if not together:
        (gradient,) = torch.autograd.grad(losses[some[0]].sum(), x, retain_graph=retain)
        return gradient[None]
    wanted = F.one_hot(some, len(losses)).to(losses.dtype)[:, :, None].expand(-1, -1, len(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's, that it goes on class by class
        (gradients,) = torch.autograd.grad(losses, x, wanted, is_grads_batched=True, retain_graph=retain)
    return gradients


def input_gradient(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`loss_gradient` of the cross-entropy with labels ``y`` (N,)."""
    return loss_gradient(network, x, CROSS_ENTROPY, (y,))
