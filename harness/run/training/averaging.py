"""A moving average of a network's weights: a network of its own, better and steadier than the one that trains."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Network = TypeVar("Network", bound=nn.Module)


class MovingAverage(Generic[Network]):
    """θ̄ ← d·θ̄ + (1 − d)·θ after every step t, with d = min(``decay``, (1 + t) / (10 + t)).

    The second term of the minimum lets go of the first weights early on. Running statistics of batch norm are averaged
    like weights, over the same steps: those of the last step belong to the last weights, not to the average. What is
    no floating-point number, such as a count of batches, is copied.
    """

    def __init__(self, network: Network, decay: float) -> None:
        """Start from ``network`` as it is, on its device and in its memory format; ``decay`` lies in (0, 1)."""
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, not {decay}")
        self.network = copy.deepcopy(network)
        self.network.requires_grad_(False).eval()
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of ``network`` after a step."""
        self._steps += 1
        average = get_ema_multi_avg_fn(min(self._decay, (1 + self._steps) / (10 + self._steps)))
        kept, given = _tensors(self.network), _tensors(network)
        floating = [tensor.is_floating_point() for tensor in given]
        average(_where(kept, floating, True), _where(given, floating, True), self._steps)
        for counter, value in zip(_where(kept, floating, False), _where(given, floating, False), strict=True):
            counter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"network": self.network.state_dict(), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        self._steps = state["steps"]


def _tensors(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once even where layers share it."""
    return [*network.parameters(), *network.buffers()]


def _where(tensors: list[Tensor], marks: list[bool], mark: bool) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor, own in zip(tensors, marks, strict=True) if own == mark)
