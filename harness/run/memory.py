"""Running out of memory: how to recognise it, and how to go on with less."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor

_CPU_WORDS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's and the CPU allocator's ways of saying it; the latter is a bare `RuntimeError`."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_WORDS)


def release() -> None:
    """Give cached device memory back. Call it outside the ``except`` block: a live traceback keeps tensors alive."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_chunks(function: Callable[[slice], Tensor], n: int, batch: int) -> Tensor:
    """``function`` over slices that cover 0 to n, concatenated. Out of memory halves the batch, down to one."""
    parts, start = [], 0
    while start < n or not parts:
        try:
            parts.append(function(slice(start, min(start + batch, n))))
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            exhausted = True
        else:
            exhausted = False
            start += batch
        if exhausted:
            batch //= 2
            release()
    return torch.cat(parts)
