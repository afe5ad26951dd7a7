"""Layers that several networks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def rounded(values: Tensor) -> list[float]:
    """A few numbers as messages show them."""
    return [round(number, 4) for number in values.flatten().tolist()]


class CopiesInput(nn.Module):
    """A network that writes into the images it is given, such as by ``x.sub_(mean)``, behind a copy of them.

    Images are shared: by the attack that made them, by the next batch, by the judge.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """What the network gives for a copy of ``x``."""
        return self.network(x.clone())


class Normalise(nn.Module):
    """(x − mean) / std per channel, for pixels (N, C, H, W) in [0, 1].

    The statistics belong to the architecture and are not learned, so they are no part of the state dict: weights that
    other programs saved load without them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    @property
    def is_identity(self) -> bool:
        """Whether it changes no pixel: mean 0 and standard deviation 1."""
        return bool((self.mean == 0).all() and (self.std == 1).all())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
