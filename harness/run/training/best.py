"""The weights of the best epoch so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Best:
    """A copy of the state of the network after the epoch with the highest score; the first of equal ones."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        """The epoch that the state is of, from 1; None before the first."""
        self.state: dict[str, Any] = {}
        """The network's state dict after that epoch."""
        self._score = float("-inf")

    def consider(self, network: nn.Module, epoch: int, score: float) -> None:
        """Keep the state of ``network`` after ``epoch`` if its score is higher than every earlier one."""
        if score > self._score:
            self._score, self.epoch = score, epoch
            self.state = {name: _copy(value) for name, value in network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """The whole state, for a checkpoint."""
        return {"epoch": self.epoch, "score": self._score, "network": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.epoch, self._score, self.state = state["epoch"], state["score"], state["network"]


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
