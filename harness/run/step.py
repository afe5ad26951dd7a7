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


def held(rows: Tensor, before: Tensor, after: Tensor, *, owned: bool = False) -> Tensor:
    """``before`` where ``rows`` (N,) is true, ``after`` elsewhere; N rows each. An ``owned`` one is written into."""
    if rows.device.type == "cpu":  # where `torch.where` is slow when its condition broadcasts, and asking is free
        if not bool(rows.any()):
            return after
        at = rows.nonzero().squeeze(1)
        return (after if owned else after.clone()).index_copy_(0, at, before[at])
    return torch.where(rows.view(-1, *[1] * (after.dim() - 1)), before, after)


def advance(
    attack: GradientAttack, reached: State, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor, state: State
) -> tuple[Tensor, State]:
    """One move of the attack from ``x_adv``, projected. ``eps`` and ``step`` have shape (N, 1, 1, 1).

    ``reached`` is what `reach` says of the clean images; it is computed once for all steps.
    """
    with unchanged(x_adv, eps, step):
        moved, state = attack.move(x_adv, gradient, eps, step, state)
    return within(attack.norm, reached, moved, eps), state
