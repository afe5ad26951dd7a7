"""Models that several tests hold measures against: one whose likelihood is known, and the size of a small VAE."""

from __future__ import annotations

from functools import partial

import torch
from torch import distributions

from epsbench.harness.run.generative.bounds import log_weights
from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.priors import StandardNormal

SHAPE, LEVELS = (1, 8, 8), 4


class LinearGaussian:
    """x = W z + s·noise with orthogonal columns of W, so that the posterior is a diagonal normal. All in float64."""

    scale = 0.5
    loadings = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.0, 0.7]], dtype=torch.float64)

    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(0)
        z, noise = (torch.randn(n, size, dtype=torch.float64, generator=generator) for size in (2, 3))
        self.x = z @ self.loadings.T + self.scale * noise

    def marginal(self) -> torch.Tensor:
        covariance = self.loadings @ self.loadings.T + self.scale**2 * torch.eye(3, dtype=torch.float64)
        return distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(self.x)

    def log_likelihood(self, z: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        mean = (z[:, None] * self.loadings).sum(2)
        return distributions.Normal(mean, self.scale).log_prob(self.x[row]).sum(1)

    def posterior(self) -> Posterior:
        precision = 1 + self.loadings.square().sum(0) / self.scale**2
        mean = self.x @ self.loadings / self.scale**2 / precision
        return Posterior(mean, (-0.5 * precision.log()).expand_as(mean))

    def log_joint(self, z: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        return self.log_likelihood(z, row) + StandardNormal(2).log_prob(z)

    def log_weights(self, posterior: Posterior, samples: int, batch: int = 1000) -> torch.Tensor:
        return log_weights(posterior, self.log_joint, samples, partial(KeyedNoise, 0), batch=batch)


def skewed(posterior: Posterior) -> Posterior:
    return Posterior(posterior.mean + 0.25, posterior.log_std + 0.3)
