"""Rows that take no further step, and attacks that write into what they were given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


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
