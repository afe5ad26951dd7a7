"""What the engine and training share: mixed precision, and one step of a gradient attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.base import GradientAttack, State
from attacks.norms import LInf, Norm

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Mixed precision for the network alone: "bf16", "fp16", or nothing at all for "float32"."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def input_gradient(network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the summed cross-entropy at pixels ``x`` (N, C, H, W), and the logits (N, classes), both float32.

    A sum, never a mean: a mean divides by N before the backward pass, and a half-precision gradient of
    a confident example then rounds to exactly 0, which the sign turns into "robust".
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = network(x).float()
        loss = F.cross_entropy(logits, y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
    return gradient.float(), logits.detach()


@contextmanager
def unchanged(*given: Tensor) -> Iterator[None]:
    """Raise `ValueError` when an attack writes into the tensors it was given, which decide what its ball is."""
    before = [tensor._version for tensor in given]
    yield
    if [tensor._version for tensor in given] != before:
        raise ValueError("the attack changes its arguments in place (such as x += ...); return new tensors instead")


def into_ball(norm: Norm, x: Tensor, x_adv: Tensor, eps: Tensor) -> Tensor:
    """The nearest point of the ε-ball around ``x`` and of the box [0, 1] to ``x_adv``."""
    delta = x_adv - x
    if type(norm) is LInf:  # what it does itself, bit for bit; clamp takes four times as long where ε broadcasts
        torch.minimum(delta, eps, out=delta)
        torch.maximum(delta, -eps, out=delta)
        return delta.add_(x).clamp_(0.0, 1.0)
    return (x + norm.project(delta, eps)).clamp_(0.0, 1.0)


def held(rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """``before`` where ``rows`` (N,) is true, ``after`` elsewhere; both have N rows."""
    if rows.device.type == "cpu":  # where `torch.where` is slow when its condition broadcasts, and asking is free
        if not bool(rows.any()):
            return after
        at = rows.nonzero().squeeze(1)
        return after.index_copy(0, at, before[at])
    return torch.where(rows.view(-1, *[1] * (after.dim() - 1)), before, after)


def advance(
    attack: GradientAttack, x: Tensor, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor, state: State
) -> tuple[Tensor, State]:
    """One move of the attack from ``x_adv``, projected. ``eps`` and ``step`` have shape (N, 1, 1, 1)."""
    with unchanged(x_adv, eps, step):
        moved, state = attack.move(x_adv, gradient, eps, step, state)
    return into_ball(attack.norm, x, moved, eps), state
