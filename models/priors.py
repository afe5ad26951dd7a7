"""Priors over the latent space: they draw z, and give the KL of a posterior."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn


class Draws(Protocol):
    """Random numbers for N rows, as `epsbench.harness.run.noise.KeyedNoise` makes them."""

    def uniform(self, *shape: int) -> Tensor: ...
    def normal(self, *shape: int) -> Tensor: ...


class GeneratorNoise:
    """The random numbers of a generator for ``n`` rows, as `Draws`; not keyed by row. None: torch's own generator."""

    def __init__(self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None) -> None:
        """``device`` is where the numbers are needed; default: that of the generator."""
        self._n, self._generator = n, generator
        self._device = generator.device if device is None and generator is not None else device

    def uniform(self, *shape: int) -> Tensor:
        """(n, *shape) uniform numbers in [0, 1)."""
        return torch.rand(self._n, *shape, generator=self._generator, device=self._device)

    def normal(self, *shape: int) -> Tensor:
        """(n, *shape) standard normal numbers."""
        return torch.randn(self._n, *shape, generator=self._generator, device=self._device)


class StandardNormal(nn.Module):
    """N(0, 1) in every dimension, without parameters."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim = z_dim

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of z (..., z_dim): shape (...)."""
        return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        """KL(N(μ, σ²) ‖ N(0, 1)) in nats, (N,), in closed form (Kingma & Welling, 2014, appendix B); z is not used."""
        return 0.5 * ((2 * log_std).exp() + mean.square() - 1 - 2 * log_std).sum(1)

    def draw(self, noise: Draws) -> Tensor:
        """Latents (N, z_dim), float32."""
        return noise.normal(self.z_dim)


class MixtureOfNormals(nn.Module):
    """A learned mixture of diagonal normals.

    Training moves the prior to where the posteriors lie, which lowers the KL (a baseline in Tomczak & Welling, "VAE
    with a VampPrior", 2018). The components start as unit normals around points drawn from N(0, 0.25), so that the
    prior is close to N(0, 1) at first.
    """

    def __init__(self, z_dim: int, components: int) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components must be at least 1, not {components}")
        self.z_dim = z_dim
        self.weight_logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(0.5 * torch.randn(components, z_dim))
        self.log_stds = nn.Parameter(torch.zeros(components, z_dim))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of z (..., z_dim): shape (...)."""
        # Large parts of these products cancel, so autocast must not round them to half precision.
        with torch.autocast(z.device.type, enabled=False):
            rows = z.reshape(-1, self.z_dim).float()
            # The quadratic form of every row and component, as two matrix products.
            precision = (-2 * self.log_stds).exp()
            square = rows.square() @ precision.T - 2 * rows @ (self.means * precision).T
            constant = (self.means.square() * precision).sum(1) + 2 * self.log_stds.sum(1)
            log_each = -0.5 * (square + constant + self.z_dim * math.log(2 * math.pi))
            return (log_each + self.weight_logits.log_softmax(0)).logsumexp(1).view(z.shape[:-1])

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        """log q(z|x) − log p(z) in nats, (N,): an unbiased estimate of the KL when z is drawn from N(μ, σ²)."""
        return log_normal(z, mean, log_std) - self.log_prob(z)

    def draw(self, noise: Draws) -> Tensor:
        """Latents (N, z_dim), float32."""
        shares = self.weight_logits.softmax(0).cumsum(0)
        chosen = torch.searchsorted(shares, noise.uniform()).clamp_(max=len(shares) - 1)
        return self.means[chosen] + self.log_stds[chosen].exp() * noise.normal(self.z_dim)


Prior = StandardNormal | MixtureOfNormals


def log_normal(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density in nats of N(μ, σ²), summed over the last dimension."""
    standardised = (z - mean) * (-log_std).exp()
    return (-0.5 * (standardised.square() + math.log(2 * math.pi)) - log_std).sum(-1)
