"""What the latent space holds: against closed forms, torch.distributions, brute force and scikit-learn."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import distributions

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.generative.latent import (
    L2,
    information_and_marginal,
    kl_by_dimension,
    kl_monte_carlo,
    latent,
    latent_work,
    linear_probe,
    log_aggregated,
    mean_variance,
)
from epsbench.harness.run.generative.measured import Advance, Measured
from epsbench.harness.run.generative.posterior import Posterior, encode
from epsbench.models.priors import MixtureOfNormals, StandardNormal
from epsbench.models.vae import VAENetwork


def posterior_of(n: int, z_dim: int, seed: int = 0) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = (torch.randn(n, z_dim, generator=generator) for _ in range(2))
    return Posterior(mean, 0.5 * log_std - 1)


def as_distribution(posterior: Posterior) -> distributions.Normal:
    return distributions.Normal(posterior.mean.double(), posterior.log_std.double().exp())


def mixture(z_dim: int, components: int) -> MixtureOfNormals:
    torch.manual_seed(0)
    prior = MixtureOfNormals(z_dim, components)
    for weight in prior.parameters():
        weight.data.normal_(std=0.5)
    return prior


def test_the_closed_form_is_that_of_torch():
    posterior = posterior_of(6, 3)
    expected = distributions.kl_divergence(as_distribution(posterior), distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_by_dimension(posterior), expected)


def test_oracles_of_the_closed_form():
    posterior = Posterior(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    expected = torch.tensor([[2.0, 2.194528, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(kl_by_dimension(posterior), expected)


def test_monte_carlo_agrees_within_its_error():
    posterior = posterior_of(8, 3)
    samples = 5000
    estimate = kl_monte_carlo(posterior, StandardNormal(3), samples, seed=0)
    exact = kl_by_dimension(posterior)
    # Of log q − log p, a quadratic of the noise, dimension by dimension: linear part μσ, quadratic part (σ² − 1)/2.
    std = posterior.log_std.double().exp()
    variance = (posterior.mean * std).square() + 0.5 * (std.square() - 1).square()
    error = (variance.sum(1) / samples).sqrt()
    assert ((estimate - exact.sum(1)).abs() < 4 * error).all()
    assert ((estimate - exact.sum(1)).abs() > 0.01 * error).any()


def test_monte_carlo_of_a_mixture_that_is_one_normal():
    posterior = posterior_of(8, 2)
    prior = MixtureOfNormals(2, 3)
    prior.means.data[:] = torch.tensor([0.5, -1.0])
    prior.log_stds.data[:] = torch.tensor([0.3, -0.2])
    normal = distributions.Normal(prior.means[0].double(), prior.log_stds[0].double().exp())
    exact = distributions.kl_divergence(as_distribution(posterior), normal).sum(1).detach()
    estimate = kl_monte_carlo(posterior, prior, 4000, seed=0)
    assert not estimate.requires_grad
    torch.testing.assert_close(estimate, exact, rtol=0.05, atol=0.1)


def test_monte_carlo_does_not_see_its_chunks():
    posterior = posterior_of(300, 2)  # more than one chunk
    alone = kl_monte_carlo(posterior[:3], StandardNormal(2), 10, seed=1)
    torch.testing.assert_close(kl_monte_carlo(posterior, StandardNormal(2), 10, seed=1)[:3], alone)


def test_the_aggregated_posterior_is_a_mixture():
    posterior, z = posterior_of(40, 3), torch.randn(7, 3)
    each = distributions.Independent(as_distribution(posterior), 1)
    expected = distributions.MixtureSameFamily(distributions.Categorical(torch.ones(40)), each).log_prob(z.double())
    torch.testing.assert_close(log_aggregated(z, posterior), expected)


def test_the_aggregated_posterior_of_narrow_normals_far_out():
    posterior = Posterior(torch.tensor([[1000.0, -1000.0], [999.0, -1000.0]]), torch.full((2, 2), -5.0))
    each = distributions.Independent(as_distribution(posterior), 1)
    z = posterior.draw(torch.ones(2, 2))
    expected = distributions.MixtureSameFamily(distributions.Categorical(torch.ones(2)), each).log_prob(z.double())
    torch.testing.assert_close(log_aggregated(z, posterior), expected, rtol=0, atol=1e-4)


def test_chunks_of_the_aggregated_posterior(monkeypatch):
    posterior, z = posterior_of(10, 2), torch.randn(9, 2)
    expected = log_aggregated(z, posterior)
    monkeypatch.setattr("epsbench.harness.run.generative.latent.PAIRS", 40)
    torch.testing.assert_close(log_aggregated(z, posterior), expected)


def test_posteriors_that_are_all_the_same_tell_nothing():
    posterior = Posterior(torch.full((50, 3), 0.4), torch.full((50, 3), -0.7))
    information, marginal = information_and_marginal(posterior, StandardNormal(3), seed=0)
    assert information.abs().max() < 1e-5
    exact = kl_by_dimension(posterior).sum(1)[0].item()
    assert marginal.mean().item() == pytest.approx(exact, abs=0.5)


def test_posteriors_that_never_meet_tell_which_image():
    posterior = Posterior(10 * torch.arange(50.0)[:, None].repeat(1, 2), torch.full((50, 2), -2.0))
    information, _ = information_and_marginal(posterior, StandardNormal(2), seed=0)
    torch.testing.assert_close(information, torch.full((50,), math.log(50), dtype=torch.float64), rtol=1e-5, atol=0)


def test_a_gaussian_channel():
    # z = x + σ·noise with x standard normal: the information is ½ log(1 + 1/σ²) nats, and q(z) = N(0, 1 + σ²).
    generator = torch.Generator().manual_seed(0)
    posterior = Posterior(torch.randn(3000, 1, generator=generator), torch.zeros(3000, 1))
    information, marginal = information_and_marginal(posterior, StandardNormal(1), seed=0)
    assert information.mean().item() == pytest.approx(0.5 * math.log(2), abs=0.02)
    assert marginal.mean().item() == pytest.approx(0.5 * (2 - 1 - math.log(2)), abs=0.04)


@pytest.mark.parametrize("prior", [StandardNormal(3), mixture(3, 4)], ids=["standard", "mixture"])
def test_information_and_marginal_make_the_rate(prior):
    posterior = posterior_of(30, 3)
    information, marginal = information_and_marginal(posterior, prior, seed=5)
    rate = kl_monte_carlo(posterior, prior, 1, seed=5)  # at the same z
    torch.testing.assert_close(information + marginal, rate, rtol=0, atol=1e-4)
    assert not (information + marginal).requires_grad


def test_a_unit_is_active_by_its_mean_alone():
    mean = torch.tensor([[-1.0, 0.3, 0.0], [1.0, 0.3, 0.0], [1.0, 0.3, 0.1], [-1.0, 0.3, 0.1]])
    variance = mean_variance(Posterior(mean, torch.randn(4, 3)))
    expected = torch.tensor([1.0, 0.0, 0.0025], dtype=torch.float64)
    torch.testing.assert_close(variance, expected, rtol=0, atol=1e-7)


def test_the_probe_is_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (600,), generator=generator)
    features = torch.randn(600, 4, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 3.0]) + 5
    features[:, 1] += 12.0 * labels
    features[:, 2] -= 0.2 * (labels == 1)
    seen, unseen = features[:400], features[400:]
    standard = (features - seen.mean(0)) / seen.std(0, correction=0)
    reference = LogisticRegression(C=1 / (L2 * 400), tol=1e-8, max_iter=1000).fit(standard[:400], labels[:400])
    predicted = linear_probe(seen, labels[:400], unseen, 3)
    assert predicted.tolist() == reference.predict(standard[400:]).tolist()
    assert 0.6 < (predicted == labels[400:]).float().mean() < 1


def test_a_probe_of_constants_says_the_commonest():
    labels = torch.tensor([2, 2, 2, 0, 1])
    assert linear_probe(torch.ones(5, 2), labels, torch.ones(3, 2), 3).tolist() == [2, 2, 2]


@pytest.fixture(scope="module")
def data(digits):
    raw = (digits[0] * 16).to(torch.uint8)
    parts = (slice(0, 60), slice(60, 70), slice(70, 100))
    train, validation, test = (Examples(raw[part], digits[1][part], 16) for part in parts)
    return Data(DATASETS["digits"], train, validation, test)


def vae(prior=None) -> VAENetwork:
    torch.manual_seed(0)
    return VAENetwork((1, 8, 8), z_dim=3, filters=4, prior=prior)


def measured_of(vae: VAENetwork, data: Data, advance: Advance = lambda n: None) -> Measured:
    return latent(vae, data, encode(vae, data.test), encode(vae, data.train), 0, advance)


def test_a_record_gets_it_all(data):
    done = []
    measured = measured_of(vae(), data, done.append)
    assert sum(done) == latent_work(data) == 2 * 30
    metrics, curves = measured.metrics, measured.curves
    assert set(metrics) == {
        "kl_closed_nats", "kl_monte_carlo_nats", "active_units", "mutual_information_nats", "marginal_kl_nats",
        "probe_accuracy",
    }  # fmt: skip
    assert {name: len(values) for name, values in curves.items()} == {
        "dimension_rate_nats": 3, "dimension_mean_variance": 3,
    }  # fmt: skip
    assert sum(curves["dimension_rate_nats"]) == pytest.approx(metrics["kl_closed_nats"].value)
    assert metrics["active_units"].value == sum(variance > 0.01 for variance in curves["dimension_mean_variance"])
    assert metrics["active_units"].n == 3
    assert metrics["mutual_information_nats"].value < math.log(30)
    probe = metrics["probe_accuracy"]
    assert probe.n == 30
    assert 0 <= probe.low < probe.value < probe.high <= 1


def test_a_record_under_a_prior_without_a_closed_form(data):
    measured = measured_of(vae(mixture(3, 2)), data)
    assert "kl_closed_nats" not in measured.metrics
    assert "dimension_rate_nats" not in measured.curves
    rate = measured.metrics["kl_monte_carlo_nats"].value
    parts = measured.metrics["mutual_information_nats"].value + measured.metrics["marginal_kl_nats"].value
    assert parts == pytest.approx(rate, abs=1)


def test_one_image_has_nothing_to_tell_apart(data):
    one = dataclasses.replace(data, test=Examples(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]), 16))
    measured = measured_of(vae(), one)
    assert measured.metrics["active_units"].value == 0
    assert measured.metrics["mutual_information_nats"].value == pytest.approx(0, abs=1e-5)
    assert measured.metrics["kl_closed_nats"].low is None
