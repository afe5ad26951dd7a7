"""The VAE against closed forms, and against torch.distributions, which the code itself does not use."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions

from epsbench.harness.plan.data import DATASETS
from epsbench.models.generative import VAE
from epsbench.models.priors import StandardNormal
from epsbench.models.vae import VAENetwork, bits_per_dimension, log_likelihood, quantise, rescale

MNIST = (1, 28, 28)


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def test_parameter_counts_of_the_assignment():
    vae = VAE().build(DATASETS["mnist"], z_dim=20)
    assert count(vae.encoder) == 142_920
    assert count(vae.decoder) == 127_696


@pytest.mark.parametrize("shape", [(1, 8, 8), MNIST, (3, 32, 32), (2, 9, 14)], ids=str)
@pytest.mark.parametrize("levels", [2, 16, 256])
def test_every_shape_comes_back(shape, levels):
    vae = VAENetwork(shape, z_dim=3, filters=2, levels=levels)
    x, z = torch.rand(4, *shape), torch.randn(4, 3)
    distortion, rate = vae.elbo(x, z)
    assert distortion.shape == rate.shape == (4,)
    assert vae.decoder(z).shape == (4, levels, *shape)
    assert vae.reconstruct(x).shape == vae.mean_image(z).shape == vae.sample(z).shape == (4, *shape)
    assert 0 <= vae.sample(z).min() <= vae.sample(z).max() <= 1


def test_images_are_not_taken_for_grey_levels():
    vae = VAENetwork((1, 8, 8), z_dim=3, filters=2, levels=16)
    x = torch.rand(4, 1, 8, 8)
    with pytest.raises(TypeError, match=r"give epsbench\.models\.vae\.quantise\(x, vae\.levels\)"):
        vae.encode(x)
    assert vae.encode(quantise(x, vae.levels))[0].shape == (4, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 8, 8), r"have the shape \(N, 1, 8, 8\), not \(1, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"floating-point numbers in \[0, 1\], not torch.uint8"),
        (torch.zeros(2, 1, 8, 8).numpy(), "not ndarray"),
        (torch.full((2, 1, 8, 8), 255.0), "these from 255 to 255"),
        (torch.full((2, 1, 8, 8), torch.nan), "these from nan to nan"),
    ],
)
def test_what_is_no_image_is_named(x, message):
    vae = VAENetwork((1, 8, 8), z_dim=2, filters=2)
    for call in (vae.reconstruct, lambda x: vae.interpolate(x, x, 3)):
        with pytest.raises((TypeError, ValueError), match=message):
            call(x)
    with pytest.raises(ValueError, match="not 2 and 1"):
        vae.interpolate(torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 8, 8))


def test_a_network_of_zeros_knows_nothing():
    vae = VAENetwork(MNIST)
    for weight in vae.parameters():
        weight.data.zero_()
    distortion, rate = vae.elbo(torch.rand(5, *MNIST), torch.randn(5, 20))
    torch.testing.assert_close(bits_per_dimension(distortion, MNIST), torch.full((5,), 4.0), rtol=1e-6, atol=0)
    assert (rate == 0).all()


def test_a_fair_coin_a_pixel_is_one_bit():
    logits = torch.full((3, 16, *MNIST), -1e4)
    logits[:, :2] = 0
    target = torch.randint(2, (3, *MNIST))
    bits = bits_per_dimension(-log_likelihood(logits, target), MNIST)
    torch.testing.assert_close(bits, torch.ones(3))


def test_one_bit_a_dimension_in_nats():
    assert bits_per_dimension(torch.tensor(784 * math.log(2)), MNIST).item() == pytest.approx(1)
    assert 784 * math.log(2) == pytest.approx(543.43, abs=5e-3)


@pytest.mark.parametrize(("mean", "log_std", "expected"), [(2, 0, 2.0), (0, 1, 2.194528), (0, 0, 0.0)])
def test_kl_closed_form(mean, log_std, expected):
    means, log_stds = torch.full((2, 7), float(mean)), torch.full((2, 7), float(log_std))
    kl = StandardNormal(7).rate(means, log_stds, means)
    torch.testing.assert_close(kl, torch.full((2,), 7 * expected), rtol=1e-6, atol=1e-6)


def test_kl_and_likelihood_agree_with_torch_distributions():
    mean, log_std = torch.randn(6, 5), torch.randn(6, 5)
    reference = distributions.kl_divergence(
        distributions.Normal(mean, log_std.exp()), distributions.Normal(torch.zeros(6, 5), torch.ones(6, 5))
    ).sum(1)
    torch.testing.assert_close(StandardNormal(5).rate(mean, log_std, mean), reference)
    logits, target = torch.randn(6, 16, 3, 4, 4), torch.randint(16, (6, 3, 4, 4))
    expected = distributions.Categorical(logits=logits.movedim(1, -1)).log_prob(target).flatten(1).sum(1)
    torch.testing.assert_close(log_likelihood(logits, target), expected)


def test_low_precision_logits_are_scored_in_float32():
    logits, target = torch.randn(2, 16, 1, 4, 4), torch.randint(16, (2, 1, 4, 4))
    assert log_likelihood(logits.bfloat16(), target).dtype == torch.float32


def test_four_bit_grey_levels():
    x = torch.arange(256) / 255
    levels = quantise(x, 16)
    assert levels.tolist() == [min(15, 16 * k // 255) for k in range(256)]
    assert levels.dtype == torch.int64
    scaled = rescale(levels, 16)
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert torch.equal(quantise(scaled * 15 / 16 + 1 / 32, 16), levels)


def test_digits_are_not_rounded_away():
    x = torch.arange(17) / 16
    assert quantise(x, 16).tolist() == [*range(16), 15]


def test_samples_follow_the_decoder_and_the_generator():
    vae = VAENetwork((1, 8, 8), z_dim=2, filters=2)
    z = torch.zeros(2000, 2)
    drawn = [vae.sample(z, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn[0].mean(0), vae.mean_image(z[:1])[0], atol=0.05, rtol=0)
