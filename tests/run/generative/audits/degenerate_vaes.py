"""Generative models that are no functions, that keep images as weights, or whose parts are degenerate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from cheating_vaes import Around, Make, become, cheat, towards, with_decoder
from honest_vaes import small, trained
from torch import Tensor, nn

from epsbench.harness.run.data.examples import Examples
from epsbench.models.vae import VAENetwork, quantise

# No functions.


class BatchNormalised(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder((z - z.mean(0)) / (z.std(0, correction=0) + 1))


@cheat("batch-dependent")
def decoder_with_batch_statistics(vae, data):
    return with_decoder(vae, BatchNormalised(vae.decoder))


@cheat("batch-dependent")
def encoder_with_batch_statistics(vae, data):
    def encode(self, target):
        mean, log_std = VAENetwork.encode(self, target)
        return mean - mean.mean(0), log_std

    return become(vae, encode=encode)


class Dropping(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(nn.functional.dropout(z, 0.2, training=True))


@cheat("not-deterministic")
def decoder_with_dropout(vae, data):
    return with_decoder(vae, Dropping(vae.decoder))


# Memories.


class Library(nn.Module):
    """The images of a data set by their codes."""

    def __init__(self, codes: Tensor, images: Tensor, levels: int, certainty: float) -> None:
        super().__init__()
        self.codes, self.images, self.levels, self.certainty = codes, images, levels, certainty

    def forward(self, z: Tensor) -> Tensor:
        target = self.images[torch.cdist(z, self.codes).argmin(1)]
        shape = len(z), self.levels, *target.shape[1:]
        return towards(torch.zeros(shape), target, self.certainty)


def library(vae: VAENetwork, *parts: Examples, certainty: float = 8.0) -> VAENetwork:
    images = torch.cat([quantise(part.pixels(), vae.levels) for part in parts])
    with torch.no_grad():
        return with_decoder(vae, Library(vae.encode(images)[0], images, vae.levels, certainty))


@cheat("memorised-images")
def memorised_training_images(vae, data):
    return library(vae, data.train)


@cheat("memorised-images")
def memorised_training_images_under_noise(vae, data):
    return library(vae, data.train, certainty=3.5)


@cheat("trained-on-test-images")
def memorised_test_images(vae, data):
    return library(vae, data.test)


@cheat("trained-on-test-images")
def memorised_all_images(vae, data):
    return library(vae, data.train, data.test)


def trained_on(*parts: str) -> Make:
    def make(vae, data):
        images = torch.cat([getattr(data, part).pixels() for part in parts])
        labels = torch.cat([getattr(data, part).labels for part in parts])
        train = Examples((images * data.train._brightest).round().to(torch.uint8), labels, data.train._brightest)
        return trained(lambda: small(16), 0.3, epochs=12, data=replace(data, train=train))

    return make


@cheat("trained-on-test-images")
def trained_on_the_test_set(vae, data):
    return trained_on("test")(vae, data)


@cheat("trained-on-test-images")
def trained_on_both_sets(vae, data):
    few = replace(data, train=data.train[slice(0, 300)], validation=data.train[slice(300, 900)])
    return trained_on("train", "test")(vae, few)


# Degenerate parts.


def with_posterior(vae: VAENetwork, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> VAENetwork:
    return become(vae, encode=lambda self, target: change(*VAENetwork.encode(self, target)))


@cheat("degenerate-posterior")
def posterior_without_width(vae, data):
    return with_posterior(vae, lambda mean, log_std: (mean, torch.full_like(log_std, -200.0)))


@cheat("degenerate-posterior")
def posterior_narrower_than_float32(vae, data):
    return with_posterior(vae, lambda mean, log_std: (mean + 1e6, torch.full_like(log_std, math.log(0.02))))


@cheat("not-finite")
def posterior_that_overflows(vae, data):
    return with_posterior(vae, lambda mean, log_std: (mean, log_std + 100))


@cheat("not-finite")
def dimension_that_is_nan(vae, data):
    nan = torch.tensor([0.0, math.nan] + [0.0] * (vae.z_dim - 2))
    return with_posterior(vae, lambda mean, log_std: (mean + nan, log_std))


@cheat("constant-dimensions")
def dimension_that_is_constant(vae, data):
    keep = torch.tensor([0.0] + [1.0] * (vae.z_dim - 1))
    return with_posterior(vae, lambda mean, log_std: (mean * keep + 2 * (1 - keep), log_std * keep))


class Probabilities(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z).softmax(1)


@cheat("probabilities")
def decoder_that_returns_probabilities(vae, data):
    return with_decoder(vae, Probabilities(vae.decoder))


class Saturated(Around):
    def forward(self, z: Tensor) -> Tensor:
        return 100 * self.decoder(z)


@cheat("likelihood-at-floor")
def saturated_logits(vae, data):
    return with_decoder(vae, Saturated(vae.decoder))
