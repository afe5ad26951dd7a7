"""Few rows, computed as more: so a row's result does not depend on how many rows are left beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from epsbench.harness.run.machine.memory import is_out_of_memory

# Matrix products of one to three rows add up in another order than those of more: their last bits differ. From four
# rows on they do not (MKL and oneDNN, two AMD EPYC cores, torch 2.14, convolutions and linear layers, forward and
# backward, up to 257 rows). But where a linear layer has fewer than 16 outputs, and rows that are no multiple of 16
# bytes long, the order depends on where a row lies in memory, however many there are: docs/engine.md, rule 6.
FEWEST = 4

# On an Intel CPU with AVX-512 the float32 products of linear layers add up in another order with up to 15 rows (MKL,
# Xeon of family 6 model 207, torch 2.14, 100 inputs or more); convolutions and backward passes only with one row. So
# only these products get as many rows, which costs next to nothing.
FEWEST_OF_PRODUCT = 16

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


def product_alike(product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``product(x)``, rows (N, K) to rows (N, M), computed on a CPU with at least `FEWEST_OF_PRODUCT` rows."""
    n = len(x)
    if not 0 < n < FEWEST_OF_PRODUCT or x.dtype != torch.float32 or x.device.type != "cpu":
        return product(x)
    return product(torch.cat([x] * -(-FEWEST_OF_PRODUCT // n)))[:n]


class AlikeLinear(nn.Linear):
    """A linear layer as `product_alike` has it."""

    def forward(self, x: Tensor) -> Tensor:
        rows = math.prod(x.shape[:-1])
        if not isinstance(rows, int) or not 0 < rows < FEWEST_OF_PRODUCT or x.dim() < 2:  # in a trace, no number
            return super().forward(x)
        flat = product_alike(super().forward, x.reshape(rows, x.shape[-1]))
        return flat.view(*x.shape[:-1], self.out_features)


def with_alike_products(network: Any) -> Any:
    """The network with its linear layers as `AlikeLinear`, in place."""
    for module in network.modules() if isinstance(network, nn.Module) else ():
        if type(module) is nn.Linear:
            module.__class__ = AlikeLinear
    return network
