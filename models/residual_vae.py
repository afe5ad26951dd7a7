"""A VAE of residual blocks at half and at a quarter of the image's resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.models.priors import MixtureOfNormals
from epsbench.models.vae import VAENetwork

if TYPE_CHECKING:
    from epsbench.models.generative import ResidualVAE


def residual_vae(
    shape: tuple[int, int, int], z_dim: int, architecture: ResidualVAE, parts: Mapping[str, Any]
) -> VAENetwork:
    """The network of an architecture, for images whose sides are divisible by 4; ``parts`` replace its own."""
    size = architecture.filters, architecture.blocks, architecture.hidden
    outputs = parts["likelihood"].outputs if "likelihood" in parts else architecture.levels
    filters, *more = size
    usual = {
        "encoder": lambda: ResidualEncoder(shape, z_dim, *size),
        "decoder": lambda: ResidualDecoder(shape, z_dim, filters, outputs, *more),
        "prior": lambda: MixtureOfNormals(z_dim, architecture.components) if architecture.components else None,
    }
    made: dict[str, Any] = {name: parts[name] if name in parts else build() for name, build in usual.items()}
    return VAENetwork(shape, z_dim, levels=architecture.levels, likelihood=parts.get("likelihood"), **made)


class Block(nn.Module):
    """x + conv(GELU(conv(GELU(x)))): He et al. (2016b), without normalisation; it starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(F.gelu(x))))


class ResidualEncoder(nn.Module):
    """Space-to-depth, blocks at half and at quarter resolution, a hidden layer, heads for mean and log-std."""

    def __init__(self, shape: tuple[int, int, int], z_dim: int, filters: int, blocks: int, hidden: int) -> None:
        super().__init__()
        channels, height, width = shape
        c = filters
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * channels, c, 3, padding=1),
            *(Block(c) for _ in range(blocks)),
            nn.GELU(),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1),
            *(Block(2 * c) for _ in range(blocks)),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(2 * c * (height // 4) * (width // 4), hidden),
            nn.GELU(),
        )
        self.mean = nn.Linear(hidden, z_dim)
        self.log_std = nn.Linear(hidden, z_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [−1, 1] to the mean and log-std of q(z|x), each (N, z_dim)."""
        features = self.layers(x)
        return self.mean(features), self.log_std(features)


class ResidualDecoder(nn.Module):
    """A hidden layer, blocks at quarter and at half resolution, depth-to-space, and a bias for every pixel."""

    def __init__(
        self, shape: tuple[int, int, int], z_dim: int, filters: int, outputs: int, blocks: int, hidden: int
    ) -> None:
        super().__init__()
        channels, height, width = shape
        c = filters
        self.outputs, self.channels = outputs, channels
        self.layers = nn.Sequential(
            nn.Linear(z_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, 2 * c * (height // 4) * (width // 4)),
            nn.Unflatten(1, (2 * c, height // 4, width // 4)),
            *(Block(2 * c) for _ in range(blocks)),
            nn.GELU(),
            nn.Conv2d(2 * c, 4 * c, 3, padding=1),
            nn.PixelShuffle(2),
            *(Block(c) for _ in range(blocks)),
            nn.GELU(),
            nn.Conv2d(c, 4 * outputs * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )
        # Most pixels near the border are black in every image. A convolution does not know its position, a bias does.
        self.bias = nn.Parameter(torch.zeros(outputs, channels, height, width))

    def forward(self, z: Tensor) -> Tensor:
        """Latents (N, z_dim) to what the likelihood takes (N, outputs, C, H, W)."""
        return self.layers(z).unflatten(1, (self.outputs, self.channels)) + self.bias
