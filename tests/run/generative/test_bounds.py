"""Bounds on the likelihood: against a model whose likelihood is known, and against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from known_models import LEVELS, SHAPE, LinearGaussian, skewed
from torch import distributions

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative import bounds as module
from epsbench.harness.run.generative.bounds import (
    averaged,
    bounds,
    bounds_work,
    importance_bounds,
    ladder,
    log_weights,
    prior_bounds,
)
from epsbench.harness.run.generative.posterior import Posterior, encode
from epsbench.harness.run.noise import KeyedNoise
from epsbench.harness.run.training.vae import evaluate_vae
from epsbench.models.priors import StandardNormal
from epsbench.models.vae import quantise

NATS = math.prod(SHAPE) * math.log(2)  # a bit per dimension


def test_the_columns_are_orthogonal():
    assert LinearGaussian.loadings.prod(1).sum().abs() < 1e-12


def test_the_true_posterior_gives_the_likelihood_at_every_draw():
    model = LinearGaussian(20)
    weights = model.log_weights(model.posterior(), 10)
    torch.testing.assert_close(weights, model.marginal()[:, None].expand(-1, 10), rtol=0, atol=1e-6)
    torch.testing.assert_close(averaged(weights, [1, 3, 10])[:, 1], model.marginal(), rtol=0, atol=1e-6)


def test_the_bound_starts_at_the_elbo_and_rises_to_the_likelihood():
    model = LinearGaussian(100)
    true, used = model.posterior(), skewed(model.posterior())
    counts = ladder(1000)
    bound = averaged(model.log_weights(used, 1000), counts)
    gap = (model.marginal()[:, None] - bound).mean(0)
    assert (gap[1:] < gap[:-1]).all()
    kl = distributions.kl_divergence(
        distributions.Normal(used.mean, used.log_std.exp()), distributions.Normal(true.mean, true.log_std.exp())
    ).sum(1)
    assert gap[0].item() == pytest.approx(kl.mean().item(), rel=0.02)
    assert kl.mean() > 0.2
    assert abs(gap[-1]) < 3e-3


def test_a_batch_changes_nothing():
    model = LinearGaussian(5)
    used = skewed(model.posterior())
    together = model.log_weights(used, 12)
    for batch in (1, 7, 12, 13):
        assert torch.equal(model.log_weights(used, 12, batch), together)
    later = log_weights(
        used[3:], lambda z, row: model.log_joint(z, row + 3), 12, lambda row, sample: KeyedNoise(0, row + 3, sample)
    )
    assert torch.equal(later, together[3:])


def test_more_draws_begin_with_the_same():
    model = LinearGaussian(4)
    used = skewed(model.posterior())
    assert torch.equal(model.log_weights(used, 30)[:, :12], model.log_weights(used, 12))


def test_groups_are_disjoint_and_all_used():
    weights = torch.randn(3, 7)
    got = averaged(weights, [1, 3, 7])
    expected = [weights.double().mean(1)]
    pairs = weights.double()[:, :6].view(3, 2, 3).exp().mean(2).log().mean(1)
    expected += [pairs, weights.double().exp().mean(1).log()]
    torch.testing.assert_close(got, torch.stack(expected, 1), rtol=0, atol=1e-6)


def test_the_ladder():
    assert ladder(1) == [1]
    assert ladder(100) == [1, 2, 5, 10, 20, 50, 100]
    assert ladder(30) == [1, 2, 5, 10, 20, 30]
    assert ladder(5000)[-3:] == [1000, 2000, 5000]
    with pytest.raises(ValueError, match="at least 1 sample, not 0"):
        ladder(0)


def likelihood_by_pixel(vae, z, target) -> float:
    """log p(x|z) of one image, pixel after pixel in float64."""
    logits = vae.decoder(z[None])[0].double()
    total = 0.0
    for channel, row, column in torch.cartesian_prod(*(torch.arange(size) for size in SHAPE)).tolist():
        pixel = logits[:, channel, row, column].tolist()
        total += pixel[target[channel, row, column]] - math.log(math.fsum(math.exp(value) for value in pixel))
    return total


def prior_density(prior, z) -> float:
    if isinstance(prior, StandardNormal):
        return distributions.Normal(0.0, 1.0).log_prob(z).sum().item()
    each = distributions.Independent(distributions.Normal(prior.means, prior.log_stds.exp()), 1)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(logits=prior.weight_logits), each)
    return mixture.log_prob(z).item()


def log_mean_exp(values) -> float:
    return math.log(math.fsum(math.exp(value - max(values)) for value in values) / len(values)) + max(values)


@torch.no_grad()
def test_importance_bounds_are_a_loop_over_images_and_draws(vae, examples):
    counts, bpd = importance_bounds(vae, examples, 4, seed=3)
    assert counts == [1, 2, 4]
    target = quantise(examples.pixels(), LEVELS)
    for image in range(5):
        mean, log_std = (part[0] for part in vae.encode(target[image : image + 1]))
        weights = []
        for sample in range(4):
            z = mean + log_std.exp() * KeyedNoise(3, torch.tensor([image]), torch.tensor([sample])).normal(2)[0]
            log_q = distributions.Normal(mean, log_std.exp()).log_prob(z).sum().item()
            weights.append(likelihood_by_pixel(vae, z, target[image]) + prior_density(vae.prior, z) - log_q)
        expected = [math.fsum(weights) / 4, (log_mean_exp(weights[:2]) + log_mean_exp(weights[2:])) / 2]
        expected.append(log_mean_exp(weights))
        assert bpd[image].tolist() == pytest.approx([-value / NATS for value in expected], rel=1e-5)


@torch.no_grad()
def test_prior_bounds_are_a_loop_over_images_and_draws(vae, examples):
    counts, bpd = prior_bounds(vae, examples, 4, seed=3)
    assert counts == [1, 2, 4]
    z = vae.prior.draw(KeyedNoise(3, torch.arange(4), torch.full((4,), -1)))
    for image, target in enumerate(quantise(examples.pixels(), LEVELS)):
        each = [likelihood_by_pixel(vae, draw, target) for draw in z]
        expected = [math.fsum(each) / 4, (log_mean_exp(each[:2]) + log_mean_exp(each[2:])) / 2, log_mean_exp(each)]
        assert bpd[image].tolist() == pytest.approx([-value / NATS for value in expected], rel=1e-5)


@pytest.mark.parametrize("bound", [importance_bounds, prior_bounds])
def test_small_chunks_give_the_same(bound, vae, examples, monkeypatch):
    expected = bound(vae, examples, 10, seed=0)[1]
    monkeypatch.setattr(module, "BATCH", {"cpu": 3})
    monkeypatch.setattr(module, "IMAGES", 2)
    monkeypatch.setattr(module, "KEPT", 2 * LEVELS * math.prod(SHAPE))
    torch.testing.assert_close(bound(vae, examples, 10, seed=0)[1], expected, rtol=1e-5, atol=0)


def test_one_sample_is_the_elbo(vae, examples):
    vae.prior.rate = lambda mean, log_std, z: Posterior(mean, log_std).log_prob(z) - vae.prior.log_prob(z)
    elbo = evaluate_vae(vae, examples, seed=0, precision="float32").sum(1)
    torch.testing.assert_close(importance_bounds(vae, examples, 1, seed=0)[1][:, 0], elbo, rtol=1e-5, atol=0)


def test_a_decoder_that_ignores_z_is_known_exactly(vae, examples):
    vae.decoder.layers[0].weight.data.zero_()
    target = quantise(examples.pixels(), LEVELS)
    exact = torch.tensor([likelihood_by_pixel(vae, torch.zeros(2), one) for one in target]) / -NATS
    counts, bpd = prior_bounds(vae, examples, 20, seed=0)
    for column in range(len(counts)):
        torch.testing.assert_close(bpd[:, column], exact.double(), rtol=1e-5, atol=0)


def test_the_model_is_left_as_it_was(vae, examples):
    vae.train()
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    importance_bounds(vae, examples, 2, seed=0)
    prior_bounds(vae, examples, 2, seed=0)
    assert vae.training
    assert all(weight.requires_grad and weight.grad is None for weight in vae.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in vae.state_dict().items())


def test_posteriors_are_those_of_the_images(vae, examples):
    posterior = encode(vae, examples)
    mean, log_std = vae.encode(quantise(examples.pixels(slice(3, 5)), LEVELS))
    torch.testing.assert_close(posterior[3:].mean, mean)
    torch.testing.assert_close(posterior[3:].log_std, log_std)
    assert len(posterior) == 5


ALL = {"importance_samples": 10, "long_importance_samples": 20, "long_images": 3, "prior_samples": 7}


def test_a_record_gets_every_bound(vae, examples):
    elbo = evaluate_vae(vae, examples, seed=0, precision="float32").sum(1)
    done = []
    measured = bounds(vae, examples, ALL, 0, elbo, done.append)
    assert sum(done) == bounds_work(vae, 5, ALL) == 10 * 2 + 20 * 3 + 7
    metrics, curves = measured.metrics, measured.curves
    assert {name: metric.n for name, metric in metrics.items()} == {
        "importance_bpd": 5, "importance_gap_bpd": 5, "long_importance_bpd": 3, "long_elbo_bpd": 3, "prior_bpd": 5,
    }  # fmt: skip
    gap = elbo.mean().item() - metrics["importance_bpd"].value
    assert metrics["importance_gap_bpd"].value == pytest.approx(gap, abs=1e-9)
    assert metrics["long_elbo_bpd"].value == pytest.approx(elbo[:3].mean().item())
    assert curves["importance_k"] == [1, 2, 5, 10]
    assert curves["long_importance_k"] == [1, 2, 5, 10, 20]
    assert curves["prior_l"] == [1, 2, 5, 7]
    for name in ("importance", "long_importance", "prior"):
        assert curves[f"{name}_bpd"][-1] == pytest.approx(metrics[f"{name}_bpd"].value)
        assert len(curves[f"{name}_bpd"]) == len(curves[f"{name}_bpd_error"])


@pytest.mark.parametrize(("more", "long", "drawn"), [(20, 3, 10 * 2 + 20 * 3), (20, 9, 20 * 5), (4, 3, 10 * 5 + 4 * 3)])
def test_the_first_of_many_samples_give_the_bound_with_few(vae, examples, more, long, drawn):
    """No latent is decoded a second time for it, and the bounds are those that each gets alone."""
    wanted = ALL | {"long_importance_samples": more, "long_images": long, "prior_samples": 0}
    done = []
    measured = bounds(vae, examples, wanted, 0, torch.zeros(5), done.append)
    assert sum(done) == bounds_work(vae, 5, wanted) == drawn
    for name, samples, images in (("importance", 10, 5), ("long_importance", more, long)):
        counts, alone = importance_bounds(vae, examples, samples, 0, images=images)
        assert measured.curves[f"{name}_k"] == counts
        assert measured.curves[f"{name}_bpd"] == pytest.approx(alone.mean(0).tolist(), rel=1e-6)
        torch.testing.assert_close(measured.each[f"{name}_bpd"], alone[:, -1], rtol=1e-6, atol=0)


def test_a_level_that_is_impossible_makes_no_other_likelihood_undefined(vae, examples):
    """A product with 0 would: 0 times minus infinity is no number."""
    decode = vae.likelihood.logits
    vae.likelihood.logits = lambda outputs: decode(outputs).index_fill(1, torch.tensor([3]), -math.inf)
    without = (quantise(examples.pixels(), LEVELS) != 3).flatten(1).all(1)
    dark = Examples(torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), 255)
    assert not without.any()
    assert prior_bounds(vae, examples, 4, seed=0)[1].isposinf().all()
    assert prior_bounds(vae, dark, 4, seed=0)[1].isfinite().all()


def test_groups_that_are_summed_up_from_smaller_groups():
    """Every count of a long ladder, with weights so far apart that most of them vanish beside the largest."""
    weights = 200 * torch.randn(3, 1234, generator=torch.Generator().manual_seed(0))
    counts = ladder(1234)
    assert len(counts) == 11
    for column, k in zip(averaged(weights, counts).T, counts, strict=True):
        groups = weights.double()[:, : 1234 // k * k].view(3, -1, k)
        torch.testing.assert_close(column, (groups.logsumexp(2) - math.log(k)).mean(1), rtol=1e-6, atol=1e-6)


def test_nothing_asked_nothing_measured(vae, examples):
    nothing = dict.fromkeys(ALL, 0)
    measured = bounds(vae, examples, nothing, 0, torch.zeros(5))
    assert not measured.metrics
    assert not measured.curves
    assert bounds_work(vae, 5, nothing) == 0


def test_one_example_has_no_error(vae, examples):
    one = Examples(torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), 255)
    measured = bounds(vae, one, ALL, 0, torch.zeros(1))
    assert measured.metrics["importance_gap_bpd"].low is None
    assert set(measured.curves) == {
        "importance_k", "importance_bpd", "long_importance_k", "long_importance_bpd", "prior_l", "prior_bpd",
    }  # fmt: skip
