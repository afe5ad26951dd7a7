"""Likelihoods of grey levels: they sum to one, and are what closed forms say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions

from epsbench.models.likelihoods import Categorical, DiscretisedLogistic, Likelihood, log_likelihood
from epsbench.models.vae import VAENetwork, bits_per_dimension

SHAPE = (3, 2, 2)


def numbers(likelihood: Likelihood, n: int = 4, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(n, likelihood.outputs, *SHAPE, generator=generator)


@pytest.mark.parametrize("levels", [2, 4, 16, 256])
@pytest.mark.parametrize("components", [1, 4])
def test_every_pixel_sums_to_one_over_its_grey_levels(levels, components):
    likelihood = DiscretisedLogistic(levels, components)
    for scale in (0.1, 1.0, 3.0, 20.0):
        total = likelihood.logits(numbers(likelihood, scale=scale)).double().exp().sum(1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=3e-5)


@pytest.mark.parametrize("likelihood", [Categorical(16), DiscretisedLogistic(16), DiscretisedLogistic(256, 3)])
def test_the_fast_way_agrees_with_the_table(likelihood):
    outputs = numbers(likelihood)
    target = torch.randint(likelihood.levels, (4, *SHAPE), generator=torch.Generator().manual_seed(1))
    target[0], target[1] = 0, likelihood.levels - 1
    torch.testing.assert_close(
        likelihood.log_prob(outputs, target), log_likelihood(likelihood.logits(outputs), target), rtol=1e-4, atol=1e-3
    )


def test_it_is_the_mass_of_a_logistic_distribution_on_each_bin():
    mean, log_scale, levels = 0.2, -1.5, 256
    base = distributions.Uniform(torch.tensor(0.0).double(), torch.tensor(1.0).double())
    logistic = distributions.TransformedDistribution(
        base,
        [distributions.SigmoidTransform().inv, distributions.AffineTransform(mean, math.exp(log_scale))],
        validate_args=False,
    )
    edges = torch.arange(1, levels).double() * 2 / (levels - 1) - 1 - 1 / (levels - 1)
    below = torch.cat([torch.zeros(1).double(), logistic.cdf(edges), torch.ones(1).double()])
    outputs = torch.tensor([mean, log_scale]).view(1, 2, 1, 1, 1)
    got = DiscretisedLogistic(levels).logits(outputs).flatten().double().exp()
    torch.testing.assert_close(got, below.diff(), rtol=1e-4, atol=1e-8)


def test_far_from_the_mean_it_does_not_cancel_to_zero():
    outputs = torch.tensor([-1.0, -4.0]).view(1, 2, 1, 1, 1)
    tail = DiscretisedLogistic(256).logits(outputs).flatten()
    assert bool(tail.isfinite().all())
    # In the tail, a bin further away has e^(−width/scale) times the mass.
    step = 2 / 255 * math.exp(4.0)
    torch.testing.assert_close(tail[1:254].diff()[100:], torch.full((152,), -step), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("levels", "bits"), [(256, 8.0), (16, 4.0), (2, 1.0)])
def test_uniform_levels_cost_their_logarithm(levels, bits):
    """Categorical with equal logits, and a mixture with a narrow component on every level."""
    target = torch.randint(levels, (5, *SHAPE), generator=torch.Generator().manual_seed(0))
    flat = Categorical(levels).log_prob(torch.zeros(5, levels, *SHAPE), target)
    comb = DiscretisedLogistic(levels, levels)
    means = torch.linspace(-1, 1, levels).view(1, -1, 1, 1, 1).expand(5, -1, *SHAPE)
    outputs = torch.cat([means, torch.full_like(means, -20.0), torch.zeros_like(means)], dim=1)
    for nats in (flat, comb.log_prob(outputs, target)):
        bpd = -bits_per_dimension(nats, SHAPE)
        torch.testing.assert_close(bpd, torch.full_like(bpd, bits), rtol=2e-2 if levels > 100 else 1e-4, atol=0)


def test_a_wide_logistic_puts_half_of_its_mass_on_each_edge():
    outputs = torch.tensor([0.0, 12.0]).view(1, 2, 1, 1, 1)
    share = DiscretisedLogistic(256).logits(outputs).flatten().exp()
    assert share[0].item() == pytest.approx(0.5, abs=1e-4)
    assert share[-1].item() == pytest.approx(0.5, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(mean=st.floats(-3, 3), log_scale=st.floats(-6.5, 3), level=st.integers(0, 255))
def test_it_mirrors(mean, log_scale, level):
    """Black and white exchanged: the mean changes its sign, the level counts from the other end."""
    likelihood = DiscretisedLogistic(256)

    def nats(mean: float, level: int) -> float:
        outputs = torch.tensor([mean, log_scale]).view(1, 2, 1, 1, 1)
        return likelihood.log_prob(outputs, torch.full((1, 1, 1, 1), level)).item()

    assert nats(mean, level) == pytest.approx(nats(-mean, 255 - level), rel=1e-3, abs=1e-3)


def test_gradients_are_finite_and_reach_mean_and_scale():
    likelihood = DiscretisedLogistic(256, 2)
    outputs = numbers(likelihood, scale=1.0).requires_grad_()
    target = torch.randint(256, (4, *SHAPE), generator=torch.Generator().manual_seed(1))
    target[0], target[1] = 0, 255
    (gradient,) = torch.autograd.grad(likelihood.log_prob(outputs, target).sum(), outputs)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).flatten(2).any(2).all())


@pytest.mark.parametrize("log_scale", [-1000.0, 50.0, 90.0, 1000.0])
def test_no_scale_is_too_narrow_or_too_wide(log_scale):
    likelihood = DiscretisedLogistic(4)
    outputs = torch.tensor([0.1, log_scale]).view(1, 2, 1, 1, 1).repeat(4, 1, 1, 1, 1).requires_grad_()
    log_prob = likelihood.log_prob(outputs, torch.arange(4).view(4, 1, 1, 1))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)
    (gradient,) = torch.autograd.grad(log_prob.sum(), outputs)
    assert bool(gradient.isfinite().all())


def test_a_network_measures_and_draws_with_it():
    torch.manual_seed(0)
    vae = VAENetwork((3, 8, 8), z_dim=4, filters=4, levels=256, likelihood=DiscretisedLogistic(256))
    x = torch.rand(2, 3, 8, 8)
    distortion, rate = vae.elbo(x, torch.zeros(2, 4))
    assert distortion.shape == rate.shape == (2,)
    z = torch.randn(2, 4)
    assert vae.logits(z).shape == (2, 256, 3, 8, 8)
    assert vae.sample(z).shape == vae.mean_image(z).shape == (2, 3, 8, 8)
    assert vae.decoder(z).shape == (2, 2, 3, 8, 8)


def test_components_are_counted():
    with pytest.raises(ValueError, match="components must be at least 1, not 0"):
        DiscretisedLogistic(16, 0)
    with pytest.raises(NotImplementedError, match=r"Likelihood must define logits\(outputs\)"):
        Likelihood(4).log_prob(torch.zeros(1, 4, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64))
