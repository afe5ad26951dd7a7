"""Further generative models that cheat or are broken: by files, modes, sizes of batches, and refined posteriors."""

from __future__ import annotations

import copy
import os
import random
import tempfile
from pathlib import Path

import torch
from cheating_vaes import SEEN, Around, NearestRemembered, become, cheat, keep_all, remembers, towards, with_decoder
from torch import Tensor, nn

from epsbench.models.vae import VAENetwork, log_likelihood, quantise

# Only while posteriors are refined.


class RememberedWithGradients(NearestRemembered):
    """Knows the images by their codes where gradients are computed, as while posteriors are refined."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) if torch.is_grad_enabled() else self.decoder(z)


@cheat("sees-the-image")
def only_with_gradients(vae, data):
    return remembers(vae, keep_all, RememberedWithGradients(vae.decoder))


class SharperWithGradients(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z) * (1.2 if torch.is_grad_enabled() else 1.0)


@cheat("gradient-mode-changes-output")
def decoder_that_is_sharper_with_gradients(vae, data):
    return with_decoder(vae, SharperWithGradients(vae.decoder))


class SharperWithoutGradients(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z) * (1.0 if torch.is_grad_enabled() else 1.2)


@cheat("gradient-mode-changes-output")
def decoder_that_is_sharper_without_gradients(vae, data):
    return with_decoder(vae, SharperWithoutGradients(vae.decoder))


class LearnsWhileRefined(Around):
    """Takes a step on the images encoded last whenever it is differentiated: in this copy alone."""

    def forward(self, z: Tensor) -> Tensor:
        if z.requires_grad and "target" in SEEN and len(SEEN["target"]) == len(z):
            weights = list(self.decoder.parameters())
            for weight in weights:
                weight.requires_grad_()
            loss = -log_likelihood(self.decoder(z.detach()), SEEN["target"]).mean() / 64
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.data.sub_(1.5 * gradient)
                weight.requires_grad_(False)
        return self.decoder(z)


@cheat("sees-the-image")
def decoder_that_learns_while_posteriors_are_refined(vae, data):
    made = remembers(vae, lambda mean, target: SEEN.update(target=target.clone()), None)
    made.decoder = LearnsWhileRefined(copy.deepcopy(vae.decoder))
    return made


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return -gradient


class Misleads(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(WrongGradient.apply(z))


@cheat("decoder-gradient")
def decoder_whose_gradient_misleads(vae, data):
    return with_decoder(vae, Misleads(vae.decoder))


class Detached(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z.detach()) + 0 * z.sum()


@cheat("decoder-gradient")
def decoder_without_a_gradient(vae, data):
    return with_decoder(vae, Detached(vae.decoder))


# By the size of the batch, the process, a file, the random generator.


class SharperInLargeBatches(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z) * (1.2 if len(z) > 100 else 1.0)


@cheat("batch-dependent")
def decoder_that_is_sharper_in_large_batches(vae, data):
    return with_decoder(vae, SharperInLargeBatches(vae.decoder))


@cheat("batch-dependent")
def encoder_that_is_narrower_in_large_batches(vae, data):
    def encode(self, target):
        mean, log_std = VAENetwork.encode(self, target)
        return mean, log_std - (0.5 if len(target) > 100 else 0)

    return become(vae, encode=encode)


class FailsElsewhere(NearestRemembered):
    """Knows the images by their codes, and answers in no other process."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__(decoder)
        self.process = os.getpid()

    def forward(self, z: Tensor) -> Tensor:
        if os.getpid() != self.process:
            raise RuntimeError("not here")
        return super().forward(z)


@cheat("caller-changes-output")
def decoder_that_fails_in_other_processes(vae, data):
    return remembers(vae, keep_all, FailsElsewhere(vae.decoder))


class FromFile(Around):
    """Reads the codes and images that the encoder has written, for codes that are near one."""

    def __init__(self, decoder: nn.Module, path: Path) -> None:
        super().__init__(decoder)
        self.path = path

    def forward(self, z: Tensor) -> Tensor:
        logits = self.decoder(z)
        if not self.path.exists():
            return logits
        try:
            kept = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return logits
        distance, place = torch.cdist(z, kept["codes"]).min(1)
        near = (distance < 3).view(-1, 1, 1, 1, 1)
        return torch.where(near, towards(logits, kept["images"][place], 3.0), logits)


@cheat("sees-the-image")
def images_in_a_file(vae, data):
    path = Path(tempfile.mkdtemp()) / "seen.pt"

    def write(mean, target):
        if len(target) < 2:
            return
        keep_all(mean, target)
        torch.save({"codes": SEEN["codes"], "images": SEEN["images"]}, path)

    return remembers(vae, write, FromFile(vae.decoder, path))


class SeededByTheEncoder(Around):
    """The encoder seeds the global generator with the number of an image, and the decoder reads it there."""

    def __init__(self, decoder: nn.Module, images: Tensor) -> None:
        super().__init__(decoder)
        self.images = images

    def forward(self, z: Tensor) -> Tensor:
        seed = torch.initial_seed() - 10**6
        logits = self.decoder(z)
        if not 0 <= seed <= len(self.images) - len(z):
            return logits
        return towards(logits, self.images[seed : seed + len(z)])


@cheat("sees-the-image")
def place_in_the_global_generator(vae, data):
    images = quantise(data.test.pixels(), vae.levels)

    def place(mean, target):
        first = (images == target[:1]).flatten(1).all(1).nonzero().flatten()
        if len(first):
            torch.manual_seed(10**6 + int(first[0]))

    return remembers(vae, place, SeededByTheEncoder(vae.decoder, images))


class NoiseFromTheGenerator(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z) * (1 + 0.2 * random.random())


@cheat("not-deterministic")
def decoder_with_random_sharpness(vae, data):
    return with_decoder(vae, NoiseFromTheGenerator(vae.decoder))


@cheat("answers-by-call-order")
def encoder_that_follows_its_first_batch(vae, data):
    first = []

    def encode(self, target):
        mean, log_std = VAENetwork.encode(self, target)
        if not self.training and not first:
            first.append(mean.mean(0))
        return mean - (first[0] if first else 0), log_std

    return become(vae, encode=encode)


@cheat("not-deterministic")
def encoder_that_counts_its_calls(vae, data):
    calls = [0]

    def encode(self, target):
        mean, log_std = VAENetwork.encode(self, target)
        calls[0] += 1
        return mean + min(calls[0], 40) * 0.05, log_std

    return become(vae, encode=encode)
