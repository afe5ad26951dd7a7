"""Gradient estimators: against quadrature on a linear-Gaussian model, and against each other."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import distributions

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.estimators import Moments, estimators, gradient_moments
from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.noise import KeyedNoise
from epsbench.models.priors import MixtureOfNormals
from epsbench.models.vae import VAENetwork

PIXELS, DRAWS, COPIES = 50, 400, 100
X = 0.7 + torch.linspace(-1, 1, PIXELS, dtype=torch.float64)
PRECISION = 1 + PIXELS  # of the true posterior, under unit noise and a standard normal prior


def log_joint(z: torch.Tensor) -> torch.Tensor:
    """Every pixel is z plus standard normal noise, and z is standard normal: z (N, 1) to nats (N,)."""
    return -0.5 * ((X - z).square().sum(1) + z.square().sum(1) + (PIXELS + 1) * math.log(2 * math.pi))


@functools.cache
def measured(mean: float, std: float, draws: int = DRAWS):
    """The moments for as many copies of the image, each with a mean and a log-std of its own to differentiate by.

    The mean over copies divides each one's gradient by their number.
    """
    parameters = [
        torch.full((COPIES, 1), value, dtype=torch.float64, requires_grad=True) for value in (mean, math.log(std))
    ]
    index = torch.arange(COPIES)
    noise = [KeyedNoise(0, index, torch.full_like(index, draw)).normal(1) for draw in range(draws)]
    return gradient_moments(parameters, Posterior(*parameters), log_joint, noise.__getitem__, draws)


def by_quadrature(mean: float, std: float):
    """Every estimator at Gauss-Hermite nodes, by hand-made derivatives: name → (nodes, 2); and the nodes' weights."""
    noise, weights = np.polynomial.hermite_e.hermegauss(30)
    weights = weights / weights.sum()
    z = mean + std * noise
    log_p = log_joint(torch.tensor(z)[:, None]).numpy()
    f = log_p + 0.5 * noise**2 + math.log(std) + 0.5 * math.log(2 * math.pi)
    score = np.stack([noise / std, noise**2 - 1], axis=1)
    slope = X.sum().item() - PRECISION * z
    values = {
        "reparameterised": np.stack([slope, slope * std * noise + 1], axis=1),
        "score": f[:, None] * score,
        "score_baseline": (f - weights @ f)[:, None] * score,
    }
    return values, weights


@pytest.mark.parametrize("name", ["reparameterised", "score", "score_baseline"])
def test_mean_and_variance_are_those_of_quadrature(name):
    mean, std = 0.5, 0.2
    values, weights = by_quadrature(mean, std)
    exact = weights @ values[name]
    assert exact == pytest.approx(weights @ values["reparameterised"])  # all estimate the same
    squares = (values[name] - exact) ** 2
    moments = measured(mean, std)[name]
    error = np.sqrt(weights @ squares / (DRAWS * COPIES))
    assert (np.abs(moments.mean.view(2, COPIES).sum(1).numpy() - exact) < 4 * error).all()
    trace = weights @ squares.sum(1)
    error = np.sqrt((weights @ squares.sum(1) ** 2 - trace**2) / (DRAWS * COPIES))
    assert abs(moments.trace() * COPIES - trace) < 4 * error
    assert error < 0.05 * trace


def test_the_trick_pays_by_orders_and_a_baseline_by_some():
    moments = measured(0.5, 0.2)
    trick, baseline, score = (moments[name].trace() for name in ("reparameterised", "score_baseline", "score"))
    assert 100 * trick < score
    assert trick < baseline < score


def test_at_the_true_posterior_a_baseline_leaves_nothing():
    # f is log p(x) wherever z is, so its mean over other draws takes all of it away; the gradient is 0.
    moments = measured(X.sum().item() / PRECISION, PRECISION**-0.5, draws=200)
    assert moments["score_baseline"].trace() < 1e-6
    assert moments["score_baseline"].mean.abs().max() < 1e-4
    assert moments["score"].trace() > 1000


def test_the_baseline_is_that_of_the_other_draws_of_the_same_image():
    mean = torch.tensor([[0.1], [0.4]], dtype=torch.float64, requires_grad=True)
    log_std = torch.zeros(2, 1, dtype=torch.float64)
    noise = torch.tensor([[[0.5], [1.0]], [[-1.5], [0.3]], [[0.2], [-0.8]]], dtype=torch.float64)
    moments = gradient_moments([mean], Posterior(mean, log_std), log_joint, lambda draw: noise[draw], 3)
    z = (mean + noise).detach()
    f = torch.stack([log_joint(draw) for draw in z]) - distributions.Normal(mean.detach(), 1.0).log_prob(z).squeeze(2)
    each = []
    for draw in range(3):
        others = [other for other in range(3) if other != draw]
        each.append((f[draw] - f[others].mean(0)) * noise[draw, :, 0] / 2)  # over two images
    each = torch.stack(each)
    torch.testing.assert_close(moments["score_baseline"].mean, each.mean(0))
    assert moments["score_baseline"].trace() == pytest.approx(each.var(0).sum().item())


def test_streamed_moments_are_those_of_all_at_once():
    vectors = torch.randn(20, 5, dtype=torch.float64) * 3 + 1e4
    moments = Moments()
    for vector in vectors:
        moments.add(vector)
    torch.testing.assert_close(moments.mean, vectors.mean(0))
    assert moments.trace() == pytest.approx(vectors.var(0).sum().item(), rel=1e-6)


def test_one_draw_has_no_variance():
    with pytest.raises(ValueError, match="at least 2 draws, not 1"):
        measured(0.0, 1.0, draws=1)
    with pytest.raises(ValueError, match="at least 2 vectors, not 0"):
        Moments().trace()


@pytest.fixture(params=["standard", "mixture"])
def vae(request):
    torch.manual_seed(0)
    prior = MixtureOfNormals(2, 3) if request.param == "mixture" else None
    return VAENetwork((1, 8, 8), z_dim=2, filters=2, levels=4, prior=prior)


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(1)
    raw = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Examples(raw, torch.zeros(3, dtype=torch.int64), 255)


def test_the_expectation_is_the_gradient_that_training_follows(vae, examples, monkeypatch):
    kept = {}

    def keeping(*arguments):
        kept.update(gradient_moments(*arguments))
        return kept

    monkeypatch.setattr("epsbench.harness.run.generative.estimators.gradient_moments", keeping)
    draws = 200
    estimators(vae, examples, draws, seed=0)
    repeats = 2000
    distortion, rate = vae.elbo(examples.pixels().repeat(repeats, 1, 1, 1), torch.randn(3 * repeats, 2))
    gradient = torch.autograd.grad(-(distortion + rate).mean(), list(vae.encoder.parameters()))
    exact = torch.cat([part.flatten() for part in gradient]).double()
    for moments in kept.values():
        # The squared distance of a mean of draws from what it estimates is the trace over draws, on average.
        assert (moments.mean - exact).square().sum() < 3 * moments.trace() / draws
    assert exact.square().sum() > 10 * kept["reparameterised"].trace() / draws


def test_a_record_gets_three_variances_and_the_model_stays(vae, examples):
    vae.train()
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    done = []
    measured = estimators(vae, examples, 20, 0, done.append)
    assert sum(done) == 40
    value = {name: metric.value for name, metric in measured.metrics.items()}
    assert set(value) == {
        "reparameterised_gradient_variance", "score_gradient_variance", "score_baseline_gradient_variance",
    }  # fmt: skip
    assert value["reparameterised_gradient_variance"] < value["score_gradient_variance"]
    assert {metric.n for metric in measured.metrics.values()} == {20}
    assert vae.training
    assert all(weight.requires_grad and weight.grad is None for weight in vae.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in vae.state_dict().items())
    assert estimators(vae, examples, 20, 0) == measured
