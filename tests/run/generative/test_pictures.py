"""Pictures of a generative model."""

from __future__ import annotations

import numpy as np
import torch

from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.generative.pictures import interpolations, last_pictures, manifold, samples
from epsbench.models.priors import MixtureOfNormals
from epsbench.models.vae import VAENetwork, quantise


def test_samples_follow_the_same_latents():
    vae = VAENetwork((1, 8, 8), z_dim=2, filters=2)
    assert np.array_equal(samples(vae, seed=3), samples(vae, seed=3))
    assert not np.array_equal(samples(vae, seed=3), samples(vae, seed=4))


def test_the_manifold_walks_the_quantiles(monkeypatch):
    vae = VAENetwork((1, 8, 8), z_dim=2, filters=2)
    seen = []
    monkeypatch.setattr(vae, "mean_image", lambda z: seen.append(z) or torch.zeros(len(z), 1, 8, 8))
    manifold(vae, side=4)
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = torch.tensor([0.125, 0.375, 0.625, 0.875])
    torch.testing.assert_close(normal.cdf(seen[0].view(4, 4, 2)[:, 0, 0]), expected)
    torch.testing.assert_close(normal.cdf(seen[0].view(4, 4, 2)[0, :, 1]), expected)


def test_a_learned_prior_is_what_samples_come_from():
    prior = MixtureOfNormals(2, 1)
    torch.nn.init.constant_(prior.means, 3.0)
    torch.nn.init.constant_(prior.log_stds, -20.0)
    vae = VAENetwork((1, 8, 8), z_dim=2, filters=2, prior=prior)
    at_three = vae.sample(torch.full((64, 2), 3.0), torch.Generator().manual_seed(3))
    assert np.array_equal(samples(vae, seed=3), at_three.numpy())


def test_walks_lead_from_one_example_to_the_next():
    examples = load_data("digits", None, torch.device("cpu"), limit=7).test
    vae = VAENetwork((1, 8, 8), z_dim=3, filters=2).eval()
    walks = interpolations(vae, examples, walks=8, steps=5)
    assert walks.shape == (3, 5, 1, 8, 8)  # seven examples make three pairs
    x = examples.pixels(slice(0, 6))
    np.testing.assert_allclose(walks[:, 0], vae.reconstruct(x[0::2]).numpy(), atol=1e-6)
    np.testing.assert_allclose(walks[:, -1], vae.reconstruct(x[1::2]).numpy(), atol=1e-6)
    with torch.no_grad():
        mean, _ = vae.encode(quantise(x, 16))
        middle = vae.mean_image((mean[0::2] + mean[1::2]) / 2)
    np.testing.assert_allclose(walks[:, 2], middle.numpy(), atol=1e-6)


def test_a_learned_prior_has_no_plane():
    examples = load_data("digits", None, torch.device("cpu"), limit=7).test
    plain = VAENetwork((1, 8, 8), z_dim=2, filters=2)
    learned = VAENetwork((1, 8, 8), z_dim=2, filters=2, prior=MixtureOfNormals(2, 3))
    assert "manifold" in last_pictures(plain, examples)
    assert "manifold" not in last_pictures(learned, examples)
