"""A model asked by its parts alone: it cannot change what it is measured on, nor send anything but numbers."""

from __future__ import annotations

import pytest
import torch
from cheating_vaes import become
from honest_vaes import DIGITS, small
from torch import nn

from epsbench.harness.run.generative.parts import Parts
from epsbench.models.priors import MixtureOfNormals, StandardNormal
from epsbench.models.vae import VAENetwork


@pytest.mark.parametrize("prior", [None, MixtureOfNormals(8, 3)])
def test_an_honest_model_measures_the_same(prior):
    vae = small(prior=prior)
    parts = Parts(vae, DIGITS.shape)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, *DIGITS.shape, generator=generator)
    noise = torch.randn(6, 8, generator=generator)
    for a, b in zip(parts.elbo(x, noise), vae.elbo(x, noise), strict=True):
        assert torch.equal(a, b)


def test_a_decoder_cannot_move_the_code():
    class Moves(nn.Module):
        def forward(self, z):
            return torch.zeros(len(z), 16, *DIGITS.shape) * z.zero_().sum()

    z = torch.ones(2, 8)
    vae = small()
    vae.decoder = Moves()
    Parts(vae, DIGITS.shape).decoder(z)
    assert bool((z == 1).all())


def test_an_encoder_cannot_change_the_image_or_its_answer_later():
    kept = {}

    def encode(self, target):
        mean, log_std = VAENetwork.encode(self, target.zero_())
        kept["mean"] = mean
        return mean, log_std

    target = torch.ones(2, *DIGITS.shape, dtype=torch.int64)
    with torch.no_grad():
        mean, _ = Parts(become(small(), encode=encode), DIGITS.shape).encode(target)
        before = mean.clone()
        kept["mean"].zero_()
    assert bool((target == 1).all())
    assert torch.equal(mean, before)


def test_a_tensor_of_another_class_is_refused():
    class Carries(torch.Tensor):
        pass

    def encode(self, target):
        mean, log_std = VAENetwork.encode(self, target)
        return mean.as_subclass(Carries), log_std

    target = torch.zeros(1, *DIGITS.shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"encode\(\)'s mean must be a torch.Tensor of shape \(1, 8\), not Carries"):
        Parts(become(small(), encode=encode), DIGITS.shape).encode(target)


def test_another_shape_is_refused():
    vae = small()
    vae.shape = (1, 80, 80)
    with pytest.raises(ValueError, match=r"the model's shape is \(1, 80, 80\), and the data's \(1, 8, 8\)"):
        Parts(vae, DIGITS.shape)
    vae = small()
    vae.decoder = nn.Flatten()
    with pytest.raises(ValueError, match=r"the decoder's output must have shape \(2, 16, 1, 8, 8\), not \(2, 8\)"):
        Parts(vae, DIGITS.shape).decoder(torch.zeros(2, 8))


def test_levels_that_change_later_change_nothing():
    vae = small()
    parts = Parts(vae, DIGITS.shape)
    vae.levels = 2
    assert parts.levels == 16


def test_a_standard_normal_with_a_rate_of_its_own_is_not_taken_for_one():
    prior = StandardNormal(8)
    prior.rate = lambda mean, log_std, z: torch.zeros(len(mean))
    parts = Parts(small(prior=prior), DIGITS.shape)
    mean = torch.ones(3, 8)
    assert bool((parts.rate(mean, torch.zeros_like(mean), mean) > 1).all())
