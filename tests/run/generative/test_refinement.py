"""Refined posteriors: against a model whose likelihood they reach, and that no image sees another."""

from __future__ import annotations

import math

import pytest
import torch
from known_models import LinearGaussian, skewed

from epsbench.harness.run.generative import refinement as module
from epsbench.harness.run.generative.bounds import averaged
from epsbench.harness.run.generative.posterior import Posterior
from epsbench.harness.run.generative.refinement import choose, refine, refined_bpd, refinement, refinement_work
from epsbench.harness.run.noise import KeyedNoise
from epsbench.harness.run.training.vae import evaluate_vae
from epsbench.models.priors import StandardNormal


def keyed(n: int, z_dim: int):
    row = torch.arange(n)
    return lambda step: KeyedNoise(0, row, torch.full_like(row, step)).normal(z_dim).double()


def test_where_the_family_holds_the_posterior_it_reaches_the_likelihood():
    model = LinearGaussian(30)
    row = torch.arange(30)

    def negative_elbo(posterior, noise):
        z = posterior.draw(noise)
        rate = StandardNormal(2).rate(posterior.mean, posterior.log_std, z)
        return rate - model.log_likelihood(z, row)

    start = skewed(model.posterior())
    # q = p(z|x) makes the weights of the bound constant; seen here over draws that no step has seen.
    fresh = [keyed(30, 2)(draw) for draw in range(1000, 1400)]
    missed = [
        torch.stack([negative_elbo(q, noise) for noise in fresh]).mean(0) + model.marginal()
        for q in (start, refine(start, negative_elbo, keyed(30, 2), 400))
    ]
    exact = skewed_kl(start, model.posterior())
    torch.testing.assert_close(missed[0].mean(), exact.mean(), rtol=0.05, atol=0)
    assert missed[1].mean().abs() < 0.02 * exact.mean()


def skewed_kl(q: Posterior, p: Posterior) -> torch.Tensor:
    distributions = (torch.distributions.Normal(one.mean, one.log_std.exp()) for one in (q, p))
    return torch.distributions.kl_divergence(*distributions).sum(1)


def test_it_tightens_the_elbo(vae, examples):
    elbo = evaluate_vae(vae, examples, 0, "float32").sum(1)
    none = refined_bpd(vae, examples, 0, 0, images=5).bpd
    torch.testing.assert_close(none, elbo, rtol=1e-5, atol=0)
    assert (refined_bpd(vae, examples, 100, 0, images=5).bpd.mean() < elbo.mean()).item()


def test_rows_do_not_see_each_other(vae, examples, monkeypatch):
    whole = refined_bpd(vae, examples, 10, 0, images=5).bpd
    torch.testing.assert_close(refined_bpd(vae, examples, 10, 0, images=3).bpd, whole[:3], rtol=1e-5, atol=0)
    monkeypatch.setattr(module, "IMAGES", {"cpu": 2})
    torch.testing.assert_close(refined_bpd(vae, examples, 10, 0, images=5).bpd, whole, rtol=1e-5, atol=0)


def test_the_model_is_left_as_it_was(vae, examples):
    vae.train()
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    refined_bpd(vae, examples, 3, 0, images=5)
    assert vae.training
    assert all(weight.requires_grad and weight.grad is None for weight in vae.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in vae.state_dict().items())


def test_a_record_gets_the_bound_and_its_gap(vae, examples):
    asked = {"refinement_steps": 4, "refined_images": 3}
    elbo = evaluate_vae(vae, examples, 0, "float32").sum(1)
    done = []
    metrics = refinement(vae, examples, asked, 0, elbo, done.append).metrics
    assert sum(done) == refinement_work(5, asked) == 12
    assert {name: metric.n for name, metric in metrics.items()} == {"refined_bpd": 3, "amortisation_gap_bpd": 3}
    refined = metrics["refined_bpd"].value
    assert metrics["amortisation_gap_bpd"].value == pytest.approx(elbo[:3].mean().item() - refined)
    assert math.isfinite(refined)


def test_where_the_likelihood_is_known_the_bounds_are_in_order():
    """−ELBO ≥ −refined ELBO ≥ −L_k with the refined posterior ≥ −log p(x), in nats, over many draws."""
    model = LinearGaussian(200)
    row = torch.arange(200)

    def negative_elbo(posterior, noise):
        z = posterior.draw(noise)
        return StandardNormal(2).rate(posterior.mean, posterior.log_std, z) - model.log_likelihood(z, row)

    start = skewed(model.posterior())
    partly = refine(start, negative_elbo, keyed(200, 2), 5)
    elbo, refined = (
        torch.stack([negative_elbo(q, keyed(200, 2)(draw)) for draw in range(1000, 1100)]).mean(0).mean()
        for q in (start, partly)
    )
    weighted = -averaged(model.log_weights(partly, 800), [8])[:, 0].mean()
    assert elbo > refined > weighted > -model.marginal().mean()


def test_steps_that_overshoot_a_narrow_posterior_are_not_kept(vae, examples):
    """Two steps of 0.05 are far for a posterior of width e⁻⁸: the encoder's posteriors stay, bound for bound."""
    with torch.no_grad():
        vae.encoder.log_std.bias.fill_(-8)
        vae.encoder.log_std.weight.zero_()
        vae.decoder.layers[0].weight.mul_(30)
    elbo = evaluate_vae(vae, examples, 0, "float32").sum(1)
    refined = refined_bpd(vae, examples, 2, 0, images=5).bpd
    assert bool((refined <= elbo * (1 + 1e-6)).all())


def test_each_image_keeps_the_better_posterior():
    a, b = (Posterior(torch.full((3, 2), value), torch.full((3, 2), -value)) for value in (1.0, 2.0))
    chosen = choose(torch.tensor([True, False, True]), a, b)
    assert chosen.mean[:, 0].tolist() == [1, 2, 1]
    assert chosen.log_std[:, 0].tolist() == [-1, -2, -1]


def test_none_is_no_work():
    assert refinement_work(5, {"refinement_steps": 0, "refined_images": 3}) == 0
