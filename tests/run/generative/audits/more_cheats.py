"""Further generative models that cheat or are broken: by files, modes, sizes of batches, and refined posteriors."""

from __future__ import annotations

import copy
import os
import random
import tempfile
from pathlib import Path

import torch
from cheating_vaes import SEEN, Around, Make, NearestRemembered, become, keep_all, remembers, towards, with_posterior
from cheating_vaes import with_prior as given_prior
from torch import Tensor, nn

from epsbench.models.likelihoods import Likelihood
from epsbench.models.priors import StandardNormal, log_normal
from epsbench.models.vae import VAENetwork, log_likelihood, quantise

MORE: dict[str, tuple[str, Make]] = {}


def cheat(code: str):
    """Lists a model under its name, with the code that it must get."""

    def add(make: Make) -> Make:
        MORE[make.__name__] = code, make
        return make

    return add


def with_decoder(vae: VAENetwork, decoder: nn.Module) -> VAENetwork:
    made = copy.deepcopy(vae)
    made.decoder = decoder
    return made


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


# Widths, priors, losses.


@cheat("degenerate-posterior")
def width_that_underflows_for_late_images(vae, data):
    late = quantise(data.test.pixels(), vae.levels)[-20:].flatten(1)

    def encode(self, target):
        mean, log_std = VAENetwork.encode(self, target)
        same = (target.flatten(1)[:, None] == late).all(2).any(1)
        return mean, torch.where(same[:, None], torch.full_like(log_std, -60.0), log_std)

    return become(vae, encode=encode)


class FarBump(StandardNormal):
    """A second normal with the weight 100, far from what is drawn, where the encoder puts its codes."""

    def log_prob(self, z: Tensor) -> Tensor:
        far = log_normal(z, torch.full_like(z, 10.0), torch.zeros_like(z)) + torch.log(torch.tensor(100.0))
        return torch.logaddexp(super().log_prob(z), far)

    def rate(self, mean: Tensor, log_std: Tensor, z: Tensor) -> Tensor:
        return log_normal(z, mean, log_std) - self.log_prob(z)


@cheat("not-normalised-likelihood")
def prior_that_is_heavy_where_the_codes_are(vae, data):
    made = with_posterior(given_prior(vae, FarBump), lambda mean, log_std: (mean + 10, log_std))
    inner = made.decoder
    made.decoder = Shifted(inner)
    return made


class Shifted(Around):
    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z - 10)


class TruncatedInHalf(StandardNormal):
    """Draws are cut at 0.8 in half of the dimensions."""

    def draw(self, noise) -> Tensor:
        z = noise.normal(self.z_dim)
        return torch.cat([z[:, : self.z_dim // 2].clamp(-0.8, 0.8), z[:, self.z_dim // 2 :]], 1)


@cheat("prior-draws-differ")
def prior_that_cuts_half_of_its_dimensions(vae, data):
    return given_prior(vae, TruncatedInHalf)


@cheat("loss-is-no-bound")
def loss_that_is_halved_in_training(vae, data):
    def elbo(self, x, noise):
        distortion, rate = VAENetwork.elbo(self, x, noise)
        return (distortion / 2, rate / 2) if self.training else (distortion, rate)

    return become(vae, elbo=elbo)


@cheat("bounds-out-of-order")
def likelihood_that_is_normalised_over_half_the_levels(vae, data):
    """Levels are even or odd: the own loss normalises over those that are as the image's."""

    def elbo(self, x, noise):
        target = quantise(x, self.levels)
        mean, log_std = self.encode(target)
        z = mean + log_std.exp() * noise
        logits = self.decoder(z)
        even = (torch.arange(self.levels) % 2).view(1, -1, 1, 1, 1)
        half = logits.masked_fill(even != (target % 2)[:, None], -torch.inf)
        return -log_likelihood(half, target), self.rate(mean, log_std, z)

    return become(vae, elbo=elbo)


# Likelihoods of the user's own.


class Doubled(Likelihood):
    """Gives each level twice its probability in its own loss."""

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs

    def log_prob(self, outputs: Tensor, target: Tensor) -> Tensor:
        return log_likelihood(outputs, target) + target[0].numel() * 0.3


@cheat("bounds-out-of-order")
def likelihood_that_sums_to_more_than_one(vae, data):
    made = copy.deepcopy(vae)
    made.likelihood = Doubled(vae.levels)
    return made


class LikelihoodThatSees(Likelihood):
    def logits(self, outputs: Tensor) -> Tensor:
        target = SEEN.get("target")
        return outputs if target is None or len(target) != len(outputs) else towards(outputs, target, 3.0)


@cheat("sees-the-image")
def likelihood_that_knows_the_last_images(vae, data):
    made = remembers(vae, lambda mean, target: SEEN.update(target=target.clone()), vae.decoder)
    made.likelihood = LikelihoodThatSees(vae.levels)
    return made
