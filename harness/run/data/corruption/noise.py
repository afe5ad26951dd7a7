"""Noise: Gaussian, Poisson, and salt and pepper."""

from __future__ import annotations

import torch
from torch import Tensor

from epsbench.harness.run.noise import KeyedNoise


def gaussian(x: Tensor, noise: KeyedNoise, deviation: float) -> Tensor:
    """x + N(0, σ²) in every pixel of every channel."""
    return x + deviation * noise.normal(*x.shape[1:])


def impulse(x: Tensor, noise: KeyedNoise, share: float) -> Tensor:
    """This share of all values becomes 0 or 1, with equal probability."""
    uniform = noise.uniform(*x.shape[1:])
    return x.masked_fill(uniform < share, 0.0).masked_fill(uniform < share / 2, 1.0)


def shot(x: Tensor, noise: KeyedNoise, photons: int) -> Tensor:
    """Poisson(x · photons) / photons, by inversion of the distribution function of each of the 256 grey levels."""
    level = (x * 255).round().long()
    table = _poisson(photons).to(x.device)
    # One sorted list: the function of level l lies between l and l + 1.
    uniform = noise.uniform(*x.shape[1:]).double() + 2.0**-25
    at = torch.searchsorted(table.flatten(), (level + uniform).flatten()).view(x.shape)
    return (at - level * table.shape[1]).clamp(0, table.shape[1] - 1).float() / photons


def _poisson(photons: int) -> Tensor:
    """l + P(X ≤ k) for X ~ Poisson(l / 255 · photons), (256, K), float64, increasing along k and below l + 1."""
    most = int(photons + 12 * photons**0.5 + 20)
    rate = torch.arange(256, dtype=torch.float64)[:, None] / 255 * photons
    k = torch.arange(most, dtype=torch.float64)
    log = torch.special.xlogy(k, rate) - rate - torch.lgamma(k + 1)
    below = log.exp().cumsum(1).clamp_max(1 - 2.0**-40)
    return torch.arange(256, dtype=torch.float64)[:, None] + below
