"""Several classifiers as one, for images that are made on all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def as_one(networks: Sequence[nn.Module]) -> nn.Module:
    """One classifier of these: the only one, or the mean of their logits."""
    return networks[0] if len(networks) == 1 else MeanOfLogits(networks)


class MeanOfLogits(nn.Module):
    """The mean of the logits of several classifiers (Liu et al., 2017; in logits: Dong et al., 2018, section 3.2)."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """Each maps images (N, C, H, W) to logits (N, classes)."""
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks]).mean(0)
