"""The sentences about generative models."""

from __future__ import annotations

from pathlib import Path

import factory
import generative_factory as generative
from generative_factory import refined

from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import Results


def reading(*records) -> str:
    return "\n".join(Content(Results(Path("results"), records, ())).reading)


def test_the_reading_says_what_the_encoder_loses():
    assert (
        "With the posterior of each image refined by 50 steps, the ELBO is 0.490 [0.488, 0.492] bits per dimension on "
        "the first 1,000 test images: the encoder loses at least 0.0200 [0.0198, 0.0202]." in reading(refined())
    )
    assert "refined by 50 steps, the ELBO is 0.490 [0.488, 0.492] bits per dimension on the test set" in reading(
        refined(images=10_000)
    )
    assert "refined" not in reading(refined(-0.001)) + reading(generative.model())


def test_the_reading_says_what_the_records_say():
    text = reading(generative.model(0.52, active=12), generative.model(0.775, z_dim=2, prior_gap=-0.004))
    assert "the best of 2 settings, vae, z = 20, β = 1 reaches 0.520 [0.516, 0.524] bits per dimension" in text
    assert "IWAE-100 tightens that bound by 0.0123 [0.0121, 0.0125]." in text
    assert "12 of its 20 latent dimensions are active." in text
    assert (
        "With 10,000 samples, Monte Carlo from the prior lies 0.004 below the ELBO at z = 2 and 0.320 above the ELBO "
        "at z = 20: it fails as the latent space grows, and importance sampling does not (the 95 % intervals over "
        "images, which share the draws, do not overlap)." in text
    )
    assert "ollapse:" not in text


def test_the_reading_says_that_the_prior_fails_only_where_it_does():
    text = reading(generative.model(0.52, prior_gap=0.001), generative.model(0.775, z_dim=2, prior_gap=0.001))
    assert "0.001 above the ELBO at z = 20." in text
    assert "it fails" not in text


def test_the_reading_counts_seeds():
    text = reading(*(generative.model(0.52 + 0.001 * seed, seed=seed) for seed in range(3)))
    assert "reaches 0.521 ±0.0010 bits per dimension on the test set (mean ± standard deviation over 3 seeds)." in text


def test_collapse_is_named_with_its_cell():
    text = reading(
        generative.model(0.52),
        generative.model(0.60, beta=4.0, active=5),
        generative.model(0.90, beta=10.0, active=0, rate=1e-5),
    )
    assert "Posterior collapse: the latent code of vae, z = 20, β = 10 carries no information on the image." in text
    assert "Partial posterior collapse: 5 of 20 units are active in vae, z = 20, β = 4." in text


def test_old_records_and_autoencoders_are_read_without_new_sentences():
    assert "reaches 0.520" in reading(factory.generation(0.52))
    assert "bits per dimension" not in reading(generative.autoencoder())


def test_a_void_model_is_neither_the_best_nor_counted():
    cheat = generative.model(0.01, z_dim=5).model_copy(update={"status": "void"})
    text = reading(cheat, generative.model(0.52), generative.model(0.6, z_dim=2))
    assert "the best of 2 settings, vae, z = 20, β = 1 reaches 0.520" in text
    assert "z = 5," not in text
