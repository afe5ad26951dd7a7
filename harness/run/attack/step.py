"""One step of a gradient attack, projected; and rows that take no further step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from epsbench.attacks.base import GradientAttack, State
from epsbench.harness.run.attack.projection import within


@contextmanager
def unchanged(*given: Tensor) -> Iterator[None]:
    """Raise `ValueError` when an attack writes into the tensors that it was given: they define its ball."""
    before = [_version(tensor) for tensor in given]
    yield
    if [_version(tensor) for tensor in given] != before:
        raise ValueError("the attack changes its arguments in place (such as x += ...); return new tensors instead")


def _version(tensor: Tensor) -> int:
    """Torch's count of writes into a tensor. A torch that hides it leaves writes unseen; no number depends on it."""
    return getattr(tensor, "_version", 0)


def hold(rows: Tensor, before: Tensor, after: Tensor, *, owned: bool = False) -> Tensor:
    """``before`` where ``rows`` (N,) is true, ``after`` elsewhere; N rows each. An ``owned`` one is overwritten."""
    if rows.device.type == "cpu":  # where `torch.where` is slow when its condition broadcasts, and asking is free
        if not bool(rows.any()):
            return after
        at = rows.nonzero().squeeze(1)
        return (after if owned else after.clone()).index_copy_(0, at, before[at])
    return torch.where(rows.view(-1, *[1] * (after.dim() - 1)), before, after)


def advance(
    attack: GradientAttack, region: State, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor, state: State
) -> tuple[Tensor, State]:
    """One move of the attack from ``x_adv``, projected. ``eps`` and ``step`` have shape (N, 1, 1, 1).

    ``region`` is what `epsbench.harness.run.attack.projection.allowed` makes of the clean images, once for all steps.
    """
    with unchanged(x_adv, eps, step):
        moved, state = attack.move(x_adv, gradient, eps, step, state)
    return within(attack.norm, region, moved, eps), state
