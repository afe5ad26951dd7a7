"""A moving average of a network's weights, kept as a network of its own."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from epsbench.harness.run.machine.copies import copy_of

Network = TypeVar("Network", bound=nn.Module)


class MovingAverage(Generic[Network]):
    """θ̄ ← d·θ̄ + (1 − d)·θ after every step t, with d = min(``decay``, (1 + t) / (10 + t)).

    The second term of the minimum makes the first weights count less early on. Running statistics of batch norm are
    averaged like weights, because those of the last step belong to the last weights and not to the average. Integers,
    such as a count of batches, are copied.
    """

    def __init__(self, network: Network, decay: float) -> None:
        """Start from ``network`` as it is, on its device and in its memory format; ``decay`` lies in (0, 1)."""
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, not {decay}")
        self.network = copy_of(network)
        self.network.requires_grad_(False).eval()
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Update the average with the weights of ``network`` after a step."""
        self._steps += 1
        average = get_ema_multi_avg_fn(min(self._decay, (1 + self._steps) / (10 + self._steps)))
        kept, given = _tensors(self.network), _tensors(network)
        floating = [tensor.is_floating_point() or tensor.is_complex() for tensor in given]
        average(_where(kept, floating, True), _where(given, floating, True), self._steps)
        for counter, value in zip(_where(kept, floating, False), _where(given, floating, False), strict=True):
            counter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, for a checkpoint."""
        return {"network": self.network.state_dict(), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self._steps = state["steps"]


def _tensors(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once even where layers share it."""
    return [*network.parameters(), *network.buffers()]


def _where(tensors: list[Tensor], marks: list[bool], mark: bool) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor, own in zip(tensors, marks, strict=True) if own == mark)
