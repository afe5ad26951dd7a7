"""The posteriors q(z|x) of a set of images, encoded once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.priors import log_normal
from epsbench.models.vae import VAENetwork, quantise

BATCH = 256
WIDTH = 4.0  # a posterior narrower than so many steps between float32 numbers at its mean is a point


@dataclass(frozen=True)
class Posterior:
    """Diagonal normal distributions, one for each image."""

    mean: Tensor
    """float32 (n, z_dim)."""

    log_std: Tensor
    """The logarithms of the standard deviations, float32 (n, z_dim)."""

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: Tensor | slice) -> Posterior:
        return Posterior(self.mean[rows], self.log_std[rows])

    def draw(self, noise: Tensor) -> Tensor:
        """z = μ + σ·noise, (n, z_dim), for standard normal ``noise``."""
        return self.mean + self.log_std.exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, (n,), for one z (n, z_dim) per image."""
        return log_normal(z, self.mean, self.log_std)

    def is_narrow(self) -> Tensor:
        """Whether float32 has no numbers to draw from so near the mean: bool (n, z_dim)."""
        mean = self.mean.detach().abs()
        step = torch.nextafter(mean, torch.full_like(mean, torch.inf)) - mean
        return self.log_std.detach().exp() <= WIDTH * step


def negative_elbo(vae: VAENetwork, examples: Examples, seed: int) -> tuple[Tensor, Posterior]:
    """Distortion and rate of every image in nats, float32 (n, 2), and its posterior, by the network as it is now.

    The first are those of `epsbench.harness.run.training.vae.evaluate_vae` in float32 on the same seed, bit for bit.
    """

    def parts(rows: slice) -> Tensor:
        target = quantise(examples.pixels(rows), vae.levels)
        posterior = Posterior(*vae.encode(target))
        example = torch.arange(rows.start, rows.stop, device=target.device)
        z = posterior.draw(KeyedNoise(seed, example, torch.zeros_like(example)).normal(vae.z_dim))
        distortion, rate = -vae.log_likelihood(z, target), vae.rate(posterior.mean, posterior.log_std, z)
        return torch.cat([distortion[:, None], rate[:, None], posterior.mean, posterior.log_std], dim=1)

    with torch.no_grad():
        both, mean, log_std = in_chunks(parts, len(examples), BATCH).split([2, vae.z_dim, vae.z_dim], dim=1)
    return both, Posterior(mean.contiguous(), log_std.contiguous())


def encode(vae: VAENetwork, examples: Examples) -> Posterior:
    """The posterior of every image, by the network in its current mode."""

    def parts(rows: slice) -> Tensor:
        return torch.stack(vae.encode(quantise(examples.pixels(rows), vae.levels)), dim=1)

    with torch.no_grad():
        return Posterior(*in_chunks(parts, len(examples), BATCH).unbind(1))
