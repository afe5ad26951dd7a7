"""Honest generative models of many kinds, trained on a few digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Settings
from epsbench.harness.run.training.vae import train_vae
from epsbench.models.generative import VAE, ResidualVAE
from epsbench.models.priors import MixtureOfNormals, log_normal
from epsbench.models.vae import VAENetwork, log_likelihood, quantise

CPU = torch.device("cpu")
DIGITS = DATASETS["digits"]


@cache
def digits(limit: int | None = None) -> Data:
    data = load_data("digits", None, CPU, limit)
    return replace(data, test=data.test[slice(0, 200)])  # enough to measure and fewer to wait for


def trained(
    build: Callable[[], VAENetwork], beta: float = 1.0, epochs: int = 6, data: Data | None = None
) -> VAENetwork:
    """The network after some epochs with Adam at 1e-2, seed 0."""
    network = seeded(build, 0)
    recipe = {"epochs": epochs, "batch_size": 32, "learning_rate": 1e-2}
    train_vae(network, data or digits(), recipe, beta, Settings(seed=0, precision="float32", compile="off"))
    return network.eval()


class Encoder(nn.Module):
    """A perceptron: on images so small it learns in a tenth of the time that convolutions take."""

    def __init__(self, z_dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.GELU())
        self.mean, self.log_std = nn.Linear(hidden, z_dim), nn.Linear(hidden, z_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(x)
        return self.mean(features), self.log_std(features)


def small(z_dim: int = 8, levels: int = 16, kind: type[VAENetwork] = VAENetwork, **options) -> VAENetwork:
    decoder = nn.Sequential(
        nn.Linear(z_dim, 64), nn.GELU(), nn.Linear(64, 64 * levels), nn.Unflatten(1, (levels, *DIGITS.shape))
    )  # fmt: skip
    return kind(DIGITS.shape, z_dim, 1, levels, encoder=Encoder(z_dim), decoder=decoder, **options)


class Laplace(nn.Module):
    """A prior of a user's own: independent Laplace distributions with learned scales."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.z_dim, self.log_scale = z_dim, nn.Parameter(torch.zeros(z_dim))

    def log_prob(self, z: Tensor) -> Tensor:
        return (-(z.abs() * (-self.log_scale).exp()) - self.log_scale - torch.log(torch.tensor(2.0))).sum(-1)

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, mean, log_std) - self.log_prob(z)

    def draw(self, noise) -> Tensor:
        u = noise.uniform(self.z_dim) - 0.5
        return -self.log_scale.exp() * u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.5 - 1e-7))


def with_laplace_prior() -> VAENetwork:
    return small(prior=Laplace(8))


class ImportanceWeighted(VAENetwork):
    """Trained on a bound with five samples (Burda et al., 2016): its own loss is tighter than its ELBO."""

    def elbo(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        target = quantise(x, self.levels)
        mean, log_std = self.encode(target)
        weights = []
        for shift in range(5):
            z = mean + log_std.exp() * noise.roll(shift, 0)
            rate = log_normal(z, mean, log_std) - self.prior.log_prob(z)
            weights.append(log_likelihood(self.decoder(z), target) - rate)
        bound = torch.stack(weights).logsumexp(0) - torch.log(torch.tensor(5.0))
        return -bound, torch.zeros_like(bound)


class FreeBits(VAENetwork):
    """Does not pay less than a quarter of a nat for a dimension (Kingma et al., 2016)."""

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        rates = 0.5 * ((2 * log_std).exp() + mean.square() - 1 - 2 * log_std)
        return rates.clamp_min(0.25).sum(1)


HONEST: dict[str, Callable[[], VAENetwork]] = {
    "beta 1": lambda: trained(small),
    "beta 0.1": lambda: trained(small, 0.1),
    "beta 10": lambda: trained(small, 10),
    "beta 100, collapsed": lambda: trained(small, 100),
    "untrained": lambda: seeded(small, 0).eval(),
    "z 1": lambda: trained(lambda: small(1)),
    "z 64": lambda: trained(lambda: small(64)),
    "2 levels": lambda: trained(lambda: small(levels=2)),
    "256 levels": lambda: trained(lambda: small(levels=256), epochs=1, data=digits(300)),
    "autoencoder": lambda: trained(lambda: small(deterministic=True)),
    "autoencoder, z 64": lambda: trained(lambda: small(64, deterministic=True), epochs=10),
    "mixture as prior": lambda: trained(lambda: small(prior=MixtureOfNormals(8, 10))),
    "Laplace as prior": lambda: trained(with_laplace_prior),
    "importance-weighted loss": lambda: trained(lambda: small(kind=ImportanceWeighted), epochs=2),
    "free bits": lambda: trained(lambda: small(kind=FreeBits)),
    "convolutions": lambda: trained(lambda: VAE(filters=4).build(DIGITS, 8), epochs=2),
    "residual": lambda: trained(
        lambda: ResidualVAE(filters=4, hidden=32, components=4).build(DIGITS, 4), epochs=2, data=digits(300)
    ),
    "overfitted": lambda: trained(lambda: small(32), 0.3, epochs=60, data=digits(100)),
}
