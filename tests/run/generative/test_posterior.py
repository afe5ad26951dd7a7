"""The ELBO and the posteriors of one pass over the images, against the evaluation of a training."""

from __future__ import annotations

import pytest
import torch
from known_models import SHAPE

from epsbench.harness.plan.data import DataDescription
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.evaluate import Subject, evaluate
from epsbench.harness.run.generative.posterior import encode, negative_elbo
from epsbench.harness.run.progress import Silent
from epsbench.harness.run.training.vae import evaluate_vae
from epsbench.models.vae import bits_per_dimension

NOTHING = (
    "importance_samples", "long_importance_samples", "long_images", "prior_samples", "refinement_steps",
    "refined_images", "gradient_samples", "generated",
)  # fmt: skip


@pytest.mark.parametrize("batch", [2, 256])
def test_it_is_the_evaluation_of_a_training_bit_for_bit(vae, examples, batch, monkeypatch):
    monkeypatch.setattr("epsbench.harness.run.generative.posterior.BATCH", batch)
    monkeypatch.setattr("epsbench.harness.run.training.vae.EVALUATION_BATCH", batch)
    vae.eval()
    nats, posterior = negative_elbo(vae, examples, 7)
    assert torch.equal(bits_per_dimension(nats.double(), SHAPE), evaluate_vae(vae, examples, 7, "float32"))
    expected = encode(vae, examples)
    assert torch.equal(posterior.mean, expected.mean)
    assert torch.equal(posterior.log_std, expected.log_std)


def test_every_image_is_encoded_once_for_the_elbo_and_the_latent_space(vae, examples, tmp_path):
    data = Data(DataDescription("five", SHAPE, 1, (5, 5, 5), False, (0.5,), (0.5,)), examples, examples, examples)
    subject = Subject(vae, data, dict.fromkeys(NOTHING, 0), 0)
    measured = evaluate(subject, tmp_path, Silent(), "five images")
    assert {"test_bpd", "active_units"} <= set(measured.metrics)
    assert subject.witness.posteriors == 3 * 5
