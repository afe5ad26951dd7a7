"""Honest networks of further kinds: in Fourier space, of polynomials, found as fixed points, hardly trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from honest_models import plain, small
from odd_models import robust
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from zoo import mlp, trained

from epsbench.models.defenses import PGDBatch


class FourierLayer(nn.Module):
    """Complex weights, one for each frequency, as in a Fourier neural operator."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Conv2d(1, 8, 1)
        self.filter = nn.Parameter(torch.randn(8, 8, 5, dtype=torch.cfloat) / 2)
        self.out = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.fft.irfft2(torch.fft.rfft2(self.lift(x)) * self.filter, s=(8, 8)).relu().flatten(1))


class Quadratic(nn.Module):
    """A quadratic form for each class, of a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.linear = nn.Linear(64, 24), nn.Linear(64, 10)
        self.form = nn.Parameter(torch.randn(10, 24, 24) / 24)

    def forward(self, x: Tensor) -> Tensor:
        z = self.project(x.flatten(1))
        return self.linear(x.flatten(1)) + torch.einsum("ni,kij,nj->nk", z, self.form, z)


class FixedPoint(nn.Module):
    """Fifteen rounds of one layer, which come close to a fixed point."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.inner, self.out = nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        given, z = self.inside(x.flatten(1)), torch.zeros(len(x), 48, device=x.device)
        for _ in range(15):
            z = torch.tanh(given + 0.3 * self.inner(z))
        return self.out(z)


class RandomFeatures(nn.Module):
    """Cosines of random projections, and a linear layer that is trained on them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("directions", torch.randn(64, 256, generator=generator))
        self.register_buffer("phases", 6.28 * torch.rand(256, generator=generator))
        self.out = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cos(x.flatten(1) @ self.directions + self.phases))


class Attention(nn.Module):
    """Self-attention over the rows of the image, as a vision transformer has it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.place = nn.Parameter(torch.randn(8, 32) / 5)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.embed(x[:, 0]) + self.place).mean(1))


class Whitened(nn.Module):
    """Pixels are whitened by a matrix that is computed in training and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(nn.ReLU)
        self.register_buffer("matrix", torch.eye(64))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if self.training:
            with torch.no_grad():
                covariance = torch.cov(flat.T) + 0.05 * torch.eye(64)
                values, vectors = torch.linalg.eigh(covariance)
                fresh = vectors @ torch.diag(values.rsqrt()) @ vectors.T
                self.matrix.mul_(0.9).add_(0.1 * fresh)
        return self.net((flat @ self.matrix).view(-1, 1, 8, 8))


class OfTwoSizes(nn.Module):
    """The mean of the answers for the image and for a smaller copy of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        smaller = F.interpolate(F.avg_pool2d(x, 2), size=8, mode="bilinear", align_corners=False)
        return (self.network(x) + self.network(smaller)) / 2


def thin(network: nn.Module) -> nn.Module:
    """Half of the weights of each layer are pruned, with masks that stay in the network."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            prune.l1_unstructured(module, "weight", amount=0.5)
    return network


def orthogonal() -> nn.Module:
    """Orthogonal weights, which are computed anew at each call."""
    return nn.Sequential(
        nn.Flatten(), parametrizations.orthogonal(nn.Linear(64, 64)), nn.ELU(), nn.Linear(64, 10)
    )  # fmt: skip


FURTHER_HONEST: dict[str, Callable[[], nn.Module]] = {
    "complex weights": lambda: trained(FourierLayer, epochs=6),
    "quadratic": lambda: trained(Quadratic, epochs=6),
    "fixed point": lambda: trained(FixedPoint, epochs=8),
    "random features": lambda: trained(RandomFeatures, epochs=8),
    "attention": lambda: trained(Attention, epochs=8),
    "whitened": lambda: trained(Whitened, epochs=6),
    "two sizes": lambda: OfTwoSizes(plain()),
    "two sizes, robust": lambda: OfTwoSizes(robust()),
    "masked weights": lambda: thin(plain()),
    "orthogonal": lambda: trained(orthogonal, epochs=6),
    "robust, attention": lambda: trained(Attention, PGDBatch(eps=0.1, steps=4), epochs=12),
    "robust at a small ε": lambda: trained(small, PGDBatch(eps=0.05, steps=4), epochs=8),
}
