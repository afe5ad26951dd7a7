"""Further batches that the encoder of a VAE learns from, while its decoder and its prior stay as they are.

An encoder that has seen few images gives new ones a worse posterior than the decoder allows: that loss is the
amortisation gap (Cremer et al., 2018). More images for the encoder alone close a part of it and leave the model of the
data, decoder and prior, honest.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.training.moved import SLIGHT, moved
from epsbench.harness.run.training.trainee import follow, mirror
from epsbench.models.priors import GeneratorNoise
from epsbench.models.vae import VAENetwork, bits_per_dimension

FIXED = ("decoder", "prior", "likelihood")
"""The parts that do not learn from these batches."""


class EncoderBatches:
    """The loss of the encoder alone on images that the decoder makes, or on training images slightly moved.

    "samples" are drawn from the decoder as it is (reverse half-asleep, arXiv 2205.11640); "augmented" images are
    shifted by up to 1 pixel and turned by up to 5 degrees; "both" are as many of each.
    """

    def __init__(self, vae: VAENetwork, source: str, generator: torch.Generator, precision: str) -> None:
        """``source`` is "samples", "augmented" or "both"; ``generator`` is that of the training."""
        self._vae, self._source, self._generator, self._precision = vae, source, generator, precision
        self.view = _replaced(vae, **{name: mirror(getattr(vae, name)) for name in FIXED})
        """The same encoder; the other parts share their tensors with those in training, and collect no gradients."""

    def loss(self, x: Tensor, beta: Tensor) -> Tensor:
        """(distortion + β·rate) in bits per dimension, a scalar, on as many images as ``x`` (N, C, H, W) has."""
        for name in FIXED:
            follow(getattr(self.view, name), getattr(self._vae, name))
        images = self._images(x)
        noise = GeneratorNoise(len(images), self._generator).normal(self._vae.z_dim)
        with autocast(x.device, self._precision):
            distortion, rate = self.view.elbo(images, noise)
        return bits_per_dimension((distortion + beta * rate).mean(), self._vae.shape)

    def _images(self, x: Tensor) -> Tensor:
        if self._source == "samples":
            return self._sampled(len(x))
        if self._source == "augmented":
            return moved(x, SLIGHT, self._generator)
        half = len(x) // 2
        return torch.cat([self._sampled(half), moved(x[half:], SLIGHT, self._generator)])

    def _sampled(self, n: int) -> Tensor:
        with torch.no_grad(), autocast(self._generator.device, self._precision):
            z = self.view.draw(GeneratorNoise(n, self._generator))
            return self.view.sample(z, self._generator)


class NoisyInput(nn.Module):
    """An encoder that sees its images, in [−1, 1], with normal noise of standard deviation ``deviation`` on them."""

    def __init__(self, encoder: nn.Module, deviation: float, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder, self.deviation, self._generator = encoder, deviation, generator

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As the encoder: mean and log-std of q(z|x)."""
        noise = torch.randn(x.shape, generator=self._generator, device=x.device)
        mean, log_std = self.encoder(x + self.deviation * noise)
        return mean, log_std


def with_noisy_input(vae: VAENetwork, deviation: float, generator: torch.Generator) -> VAENetwork:
    """The same VAE, sharing every weight, whose encoder sees noise of ``deviation`` in pixel units; itself for 0."""
    if not deviation:
        return vae
    return _replaced(vae, encoder=NoisyInput(vae.encoder, 2 * deviation, generator))


def _replaced(vae: VAENetwork, **parts: nn.Module) -> VAENetwork:
    """The same object in all but some parts: everything else is shared."""
    view = copy.copy(vae)
    view.__dict__["_modules"] = dict(vae.__dict__["_modules"]) | parts
    return view
