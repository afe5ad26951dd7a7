"""The gradient that an attack follows."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.attacks.losses import CROSS_ENTROPY, Loss
from epsbench.attacks.rows import Chosen, least, likeliest_others

Score = Callable[[Tensor, Tensor], Tensor]
"""`epsbench.attacks.asking.Asking.score`."""

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
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    loss: Loss,
    y: Tensor,
    count: int,
    *,
    score: Score | None = None,
    exact: Tensor | None = None,
    together: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (N, M, C, H, W) at pixels ``x`` of a loss towards each of M classes, logits (N, K), and the classes.

    The classes (N, M) are the ``count`` most likely ones but the label ``y`` (N,). With a ``score`` (N, M) of the
    losses and their gradients, it is the one class (M = 1) of the least; ``exact`` are the logits (N, K) for these
    losses, where they are more exact than the network's. One forward pass, and a backward pass a class. Several classes
    go back ``together``, each layer one call: up to twice as fast for few rows. Raises what torch raises, and a
    `UserWarning`, where a layer's backward pass cannot take several: ask again class by class.
    """
    x = x.detach().requires_grad_(True)
    numbers = torch.arange(count, device=x.device)
    most = min(count, _ROWS_TOGETHER // max(1, len(x)), _NUMBERS_TOGETHER // max(1, x.numel())) if together else 1
    size = max(1, most)
    with torch.enable_grad():
        logits = network(x).float()
        classes = likeliest_others(logits.detach(), y, count)
        gradients = logits.new_empty(len(x), 0 if score else count, *x.shape[1:])
        chosen: Chosen | None = None
        for first in range(0, count, size):  # numbers of the host: it need not wait for the device
            at, last = slice(first, first + size), first + size >= count
            losses = _towards(loss, logits, y, classes[:, at]).T  # of these classes alone: each has a backward pass
            gradient = _rows_of_jacobian(losses, x, numbers[: len(losses)], together=together, retain=not last)
            gradient = gradient.float().movedim(0, 1)
            if score:
                values = losses.detach().T if exact is None else _towards(loss, exact, y, classes[:, at])
                chosen = least(score(values, gradient), gradient, classes[:, at], chosen)
            else:
                gradients[:, at] = gradient
    if chosen is not None:
        gradients, classes = chosen.gradient, chosen.classes
    return gradients, logits.detach(), classes


def _towards(loss: Loss, logits: Tensor, y: Tensor, classes: Tensor) -> Tensor:
    """The loss towards each of some classes, both (N, M)."""
    return torch.stack([loss(logits, y, target) for target in classes.unbind(1)], 1)


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


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between two gradients (N, C, H, W), row by row, (N,); 0 where one of them is 0.

    A confident example's gradient may be 1e-20 long. Each row is divided by its largest entry, since squares would
    underflow.
    """
    first, second = (each.flatten(1) / largest(each).clamp_min(1e-38)[:, None] for each in (a, b))
    return F.cosine_similarity(first, second)


def largest(gradient: Tensor) -> Tensor:
    """The largest number of each row's gradient (N, C, H, W), (N,)."""
    return gradient.flatten(1).abs().amax(1)
