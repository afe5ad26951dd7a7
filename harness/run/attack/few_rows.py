"""Few rows, computed as more: so a row's result does not depend on how many rows are left beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor

from epsbench.harness.run.machine.memory import is_out_of_memory

# Matrix products of one to three rows add up in another order than those of more: their last bits differ. From four
# rows on they do not (MKL and oneDNN, two AMD EPYC cores, torch 2.14, convolutions and linear layers, forward and
# backward, up to 257 rows). But where a linear layer has fewer than 16 outputs, and rows that are no multiple of 16
# bytes long, the order depends on where a row lies in memory, however many there are: docs/engine.md, rule 6.
FEWEST = 4

T = TypeVar("T", Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor])


def alike(call: Callable[..., T], *given: Tensor) -> T:
    """``call(*given)``, computed with at least `FEWEST` rows; all have as many rows, N. Returns N rows.

    Rows are repeated for that. Where memory does not suffice for more rows, there are no more.
    """
    n = len(given[0])
    if not 0 < n < FEWEST:
        return call(*given)
    try:
        result = call(*(each[torch.arange(FEWEST, device=each.device) % n] for each in given))
        return result[:n] if isinstance(result, Tensor) else cast(T, tuple(each[:n] for each in result))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return call(*given)
