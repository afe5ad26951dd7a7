"""The Feature Likelihood Divergence against closed forms, another optimiser, and generators that copy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import optim

from epsbench.harness.run.generative import likelihood as module
from epsbench.harness.run.generative.likelihood import NARROWEST, Mixture, likelihood_divergence


def points(n, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_one_centre_in_closed_form(monkeypatch):
    # Without the background the best variance is the mean squared distance over d.
    monkeypatch.setattr(module, "BACKGROUND", 1e9)
    x, centre = points(200), torch.full((1, 6), 0.3)
    mixture = Mixture.fit(centre, x)
    best = (x - centre).square().sum(1).mean() / 6
    assert mixture.variance.item() == pytest.approx(best.item(), rel=1e-4)
    expected = 0.5 * (math.log(2 * math.pi * best) + 1)
    assert mixture.surprise(x) == pytest.approx(expected, rel=1e-4)


def test_the_density_against_torch_distributions():
    mixture = Mixture(points(7, seed=1), torch.linspace(0.2, 2, 7))
    x = points(20, seed=2)
    parts = torch.stack(
        [
            torch.distributions.MultivariateNormal(centre, variance * torch.eye(6)).log_prob(x)
            for centre, variance in zip(mixture.centres, mixture.variance, strict=True)
        ]
    )
    assert mixture.surprise(x) == pytest.approx(-(parts.logsumexp(0) - math.log(7)).mean().item() / 6, rel=1e-5)


def plain_fit(centres, points):
    """The same steps of expectation maximisation in float64, on all points at once, as they are written on paper."""
    d, m = points.shape[1], len(centres)
    squares = (points[:, None] - centres).square().sum(2)
    to_mean = module.BACKGROUND * (points - points.mean(0)).square().sum(1, keepdim=True)
    variance, wide, before = (squares.amin(0) / d).clamp(min=NARROWEST), to_mean.mean() / d, -math.inf
    for _ in range(module.ITERATIONS):
        normals = [(squares, variance, math.log(m)), (to_mean, wide[None], 0.0)]
        density = torch.cat([-s / (2 * v) - d / 2 * (2 * math.pi * v).log() - log for s, v, log in normals], 1)
        total = density.logsumexp(1, keepdim=True)
        if total.mean() / d - before < module.TOLERANCE:
            break
        before, share = total.mean() / d, (density - total).exp()
        weight, sums = share[:, :m].sum(0), (share[:, :m] * squares).sum(0)
        seen = weight > torch.finfo(torch.float32).tiny
        variance = torch.where(seen, (sums / (d * weight)).clamp(min=NARROWEST), variance)
        wide = (share[:, m:] * to_mean).sum() / (d * share[:, m:].sum())
    return variance


@pytest.mark.parametrize("rows", [7, 256])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_fit_is_expectation_maximisation(rows, scale, monkeypatch):
    """Also with centres that are so far away that their shares vanish."""
    monkeypatch.setattr(module, "ROWS", rows)
    x, centres = points(300), torch.cat([points(40, seed=1), scale * points(10, seed=2) + scale])
    fitted = Mixture.fit(centres, x).variance
    torch.testing.assert_close(fitted.double(), plain_fit(centres.double(), x.double()), rtol=1e-3, atol=0)


def test_another_optimiser_does_no_better(monkeypatch):
    monkeypatch.setattr(module, "BACKGROUND", 1e9)
    monkeypatch.setattr(module, "ITERATIONS", 1000)
    monkeypatch.setattr(module, "TOLERANCE", 0.0)
    x, centres = points(150), points(10, seed=1)
    fitted = Mixture.fit(centres, x)
    logs = fitted.variance.log().clone().requires_grad_()
    optimiser = optim.Adam([logs], lr=0.02)
    for _ in range(300):
        density = module._log_density(torch.cdist(x, centres).square(), logs.exp(), 6)
        loss = -(density.logsumexp(1) - math.log(10)).mean() / 6
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert fitted.surprise(x) <= loss.item() + 1e-3


def test_samples_of_the_distribution_reach_the_floor():
    metrics = likelihood_divergence(points(1200), points(600, seed=1), points(600, seed=2), 0)
    assert metrics["likelihood_divergence"].value == pytest.approx(0, abs=2)
    assert metrics["likelihood_gap"].value == pytest.approx(metrics["floor_likelihood_gap"].value, abs=3)
    assert metrics["likelihood_divergence"].n == 600


@pytest.mark.parametrize("worse", [lambda x: x * 1.5, lambda x: x + 1, lambda x: x[:1].expand_as(x)])
def test_samples_of_another_distribution_do_not(worse):
    metrics = likelihood_divergence(points(1200), points(600, seed=1), worse(points(600, seed=2)), 0)
    assert metrics["likelihood_divergence"].value > 4


def test_copies_of_training_images_show():
    train = points(1200)
    metrics = likelihood_divergence(train, points(600, seed=1), train[:600], 0)
    assert metrics["likelihood_gap"].value < 5 * metrics["floor_likelihood_gap"].value
    assert metrics["likelihood_divergence"].value > 50
    assert math.isfinite(metrics["likelihood_divergence"].value)


def test_the_order_of_no_set_matters_but_the_seed_chooses_halves():
    sets = points(300), points(150, seed=1), points(150, seed=2)
    first = likelihood_divergence(*sets, 0)
    assert likelihood_divergence(sets[0], sets[1].flip(0), sets[2].flip(0), 0)["likelihood_gap"].value == pytest.approx(
        first["likelihood_gap"].value, rel=0.01
    )
    assert likelihood_divergence(*sets, 1) != first


def test_a_unit_that_never_fires_and_equal_samples():
    dead = torch.cat([points(300), torch.zeros(300, 1)], dim=1)
    metrics = likelihood_divergence(dead, dead.flip(0), dead[:1].expand(300, 7), 0)
    assert all(math.isfinite(metric.value) for metric in metrics.values())
    assert Mixture.fit(dead[:50], dead).variance.min() >= NARROWEST


def test_too_few_training_images():
    with pytest.raises(ValueError, match="two halves"):
        likelihood_divergence(points(1), points(5), points(5), 0)
