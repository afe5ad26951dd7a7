"""Matrix products of a traced step whose rows do not depend on how many there are."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from epsbench.harness.run.attack.few_rows import product_alike
from epsbench.harness.run.speed.program.tracing import aten, calls, tidy


def make_products_alike(module: fx.GraphModule) -> None:
    """Replace all products by those of `epsbench.harness.run.attack.few_rows.product_alike`."""
    for node in calls(module, aten.mm.default, aten.addmm.default):
        if not node.kwargs:
            node.target = _mm if node.target is aten.mm.default else _addmm
    tidy(module)


def _mm(x: Tensor, weight: Tensor) -> Tensor:
    return product_alike(lambda rows: torch.mm(rows, weight), x)


def _addmm(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    if bias.dim() > 1:  # each row has its own
        return torch.addmm(bias, x, weight)
    return product_alike(lambda rows: torch.addmm(bias, rows, weight), x)
