"""Priors against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.priors import MixtureOfNormals, StandardNormal, log_normal


def mixture(components=5, z_dim=3):
    torch.manual_seed(0)
    prior = MixtureOfNormals(z_dim, components)
    for weights in prior.parameters():
        torch.nn.init.normal_(weights)
    reference = MixtureSameFamily(
        Categorical(logits=prior.weight_logits), Independent(Normal(prior.means, prior.log_stds.exp()), 1)
    )
    return prior, reference


def keyed(n, seed=0):
    index = torch.arange(n)
    return KeyedNoise(seed, index, torch.zeros_like(index))


def test_the_standard_normal():
    prior, z = StandardNormal(3), torch.randn(4, 5, 3)
    torch.testing.assert_close(prior.log_prob(z), Independent(Normal(0.0, torch.ones(3)), 1).log_prob(z))
    mean, log_std = torch.randn(6, 3), torch.randn(6, 3)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(prior.rate(mean, log_std, mean), expected)
    assert torch.equal(prior.draw(keyed(7)), keyed(7).normal(3))


def test_a_mixture_has_the_density_of_a_mixture():
    prior, reference = mixture()
    z = 2 * torch.randn(4, 6, 3)
    torch.testing.assert_close(prior.log_prob(z), reference.log_prob(z), rtol=1e-5, atol=1e-5)


def test_a_far_point_has_a_finite_density():
    prior, _ = mixture()
    assert torch.isfinite(prior.log_prob(torch.full((1, 3), 1e4))).all()


def test_a_density_is_float32_under_autocast():
    prior, _ = mixture(components=20, z_dim=8)
    torch.nn.init.constant_(prior.log_stds, -2.0)  # narrow components: large terms that cancel
    z = prior.draw(keyed(50)).detach()
    with torch.autocast("cpu", torch.bfloat16):
        computed = prior.log_prob(z)
    assert computed.dtype == torch.float32
    torch.testing.assert_close(computed, prior.log_prob(z), rtol=0, atol=0)


def test_draws_of_a_mixture_are_distributed_like_it():
    prior, reference = mixture()
    drawn = prior.draw(keyed(40_000)).detach()
    torch.testing.assert_close(drawn.mean(0), reference.mean.detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(0), reference.variance.detach(), rtol=0.1, atol=0)
    # The mean log-density of its own draws is minus the entropy; any other distribution would give less or more.
    own, other = (reference.log_prob(z).mean() for z in (drawn, reference.sample((40_000,))))
    torch.testing.assert_close(own, other, atol=0.05, rtol=0)


def test_the_rate_under_a_mixture_estimates_the_divergence():
    # One component that is the standard normal: the estimate's mean is the closed form.
    prior = MixtureOfNormals(2, 1)
    torch.nn.init.zeros_(prior.means)
    mean, log_std = torch.tensor([[1.0, -2.0]]), torch.tensor([[-0.5, 0.3]])
    z = mean + log_std.exp() * keyed(200_000).normal(2)
    estimates = prior.rate(mean, log_std, z)
    error = estimates.std() / len(z) ** 0.5
    assert abs(estimates.mean() - StandardNormal(2).rate(mean, log_std, z)) < 4 * error


def test_log_normal():
    mean, log_std, z = torch.randn(3, 4, 2).unbind(0)
    torch.testing.assert_close(log_normal(z, mean, log_std), Normal(mean, log_std.exp()).log_prob(z).sum(-1))


def test_no_components():
    with pytest.raises(ValueError, match="components must be at least 1, not 0"):
        MixtureOfNormals(2, 0)
