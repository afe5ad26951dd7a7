"""How many rows a CPU can take a gradient of at a time: the system ends a process that takes too much memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epsbench.harness.plan.data.budget import machine_memory

SHARE = 4  # the activations of a batch may take one part in so many of the machine's memory
WORTH = 3 * 64 * 64  # numbers an image; with fewer, no batch that is used takes gigabytes
FEWEST = 4  # rows that are always taken
_TRIED = (2, 4)  # rows; the second pass saves what two more rows need: weights are in both


def rows_that_fit(network: Callable[[Tensor], Tensor], x: Tensor) -> int | None:
    """How many images like ``x`` (N, C, H, W) a gradient may be taken of at a time; None: as many as are wanted.

    Only on a CPU: another device raises when its memory runs out, and the batch is halved.
    """
    if x.device.type != "cpu" or not len(x) or x[0].numel() < WORTH:
        return None
    try:
        few, more = (_saved(network, x[torch.arange(rows) % len(x)]) for rows in _TRIED)
    # The network is the user's. What it raises is reported where it is run next.
    except Exception:  # noqa: BLE001
        return None
    each = (more - few) // (_TRIED[1] - _TRIED[0])
    return max(FEWEST, machine_memory() // SHARE // each) if each > 0 else None


def as_many_as_fit(most: int, network: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """``most``, or `rows_that_fit` of images like ``x`` (N, C, H, W) where these are fewer."""
    return min(most, rows_that_fit(network, x) or most)


def _saved(network: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """The bytes that a forward pass keeps for the gradient of its input."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(x.detach().clone().requires_grad_(True))
    return sum(kept.values())
