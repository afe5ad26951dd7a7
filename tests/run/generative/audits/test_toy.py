"""A model of so few pixels that its likelihood is known: it sums to one, and every bound lies above it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.generative.bounds import importance_bounds, prior_bounds
from epsbench.harness.run.generative.parts import Parts
from epsbench.harness.run.generative.refinement import refined_bpd
from epsbench.harness.run.training.vae import evaluate_vae
from epsbench.models.vae import VAENetwork, bits_per_dimension, log_likelihood

SHAPE, LEVELS = (1, 2, 2), 3


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x.flatten(1)).split(1, 1)


@pytest.fixture(scope="module")
def toy():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, LEVELS * 4), nn.Unflatten(1, (LEVELS, *SHAPE)))
    for weight in decoder.parameters():
        weight.data.mul_(3)
    return Parts(VAENetwork(SHAPE, 1, 1, LEVELS, encoder=Encoder(), decoder=decoder), SHAPE).eval()


@pytest.fixture(scope="module")
def images():
    """Every image that there is: 81 of them."""
    return torch.tensor(list(itertools.product(range(LEVELS), repeat=4))).view(-1, *SHAPE)


@pytest.fixture(scope="module")
def true_bpd(toy, images):
    z = torch.linspace(-8, 8, 2001)[:, None]
    with torch.no_grad():
        logits, density = toy.decoder(z), toy.prior.log_prob(z).exp().double()
        of_codes = (
            torch.stack([log_likelihood(logits, image.expand(len(z), *SHAPE)) for image in images]).double().exp()
        )
    return -bits_per_dimension(torch.trapezoid(of_codes * density, z[:, 0].double()).log(), SHAPE)


def test_the_likelihood_of_a_code_sums_to_one_over_all_images(toy, images):
    with torch.no_grad():
        for code in (-2.0, 0.0, 1.5):
            logits = toy.decoder(torch.full((len(images), 1), code))
            assert log_likelihood(logits, images).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_the_likelihood_sums_to_one_and_every_bound_lies_above_it(toy, images, true_bpd):
    assert (-true_bpd * 4 * torch.log(torch.tensor(2.0).double())).exp().sum().item() == pytest.approx(1, abs=1e-6)
    raw = (images * (255 / (LEVELS - 1))).round().to(torch.uint8)
    examples = Examples(raw, torch.zeros(len(raw), dtype=torch.int64), 255)
    elbo = evaluate_vae(toy, examples, 0, "float32").sum(1)
    _, weighted = importance_bounds(toy, examples, 500, 0)
    _, prior = prior_bounds(toy, examples, 500, 0)
    both = refined_bpd(toy, examples, 50, 0, images=len(raw))
    refined = both.bpd
    for bound in (elbo, weighted[:, -1], prior[:, -1], refined, both.weighted_bpd):
        assert bound.mean() > true_bpd.mean() - 3 * (bound - true_bpd).std() / 9
    assert elbo.mean() > weighted[:, -1].mean()
    assert elbo.mean() > refined.mean() > both.weighted_bpd.mean()
    assert weighted[:, -1].mean().item() == pytest.approx(true_bpd.mean().item(), abs=0.02)
