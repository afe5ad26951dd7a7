"""Generative models whose widths, priors, losses or likelihoods cheat."""

from __future__ import annotations

import copy

import torch
from cheating_vaes import SEEN, Around, become, cheat, remembers, towards
from cheating_vaes import with_prior as given_prior
from degenerate_vaes import with_posterior
from torch import Tensor

from epsbench.models.likelihoods import Likelihood
from epsbench.models.priors import StandardNormal, log_normal
from epsbench.models.vae import VAENetwork, log_likelihood, quantise

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
