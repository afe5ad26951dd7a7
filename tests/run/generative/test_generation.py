"""A generation job from cell to record, on the digits, and its cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import GenerationCell
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.plan import Job
from epsbench.harness.records import read_pictures, read_record, write_record
from epsbench.harness.run.context import Context
from epsbench.harness.run.generative import job as generation
from epsbench.harness.run.generative.job import run_generation_job
from epsbench.harness.run.generative.posterior import encode
from epsbench.harness.run.preflight import preflight
from epsbench.harness.run.runner import _line
from epsbench.harness.run.training.losses import TrainingDiverged

# Small counts: how the measures behave is tested where they are.
EVALUATION = {
    "importance_samples": 4, "long_importance_samples": 8, "long_images": 5, "prior_samples": 16, "generated": 80,
    "gradient_samples": 4, "refinement_steps": 3, "refined_images": 6,
}  # fmt: skip
MEASURED = {
    "train_bpd", "validation_bpd", "test_bpd", "rate_bpd", "distortion_bpd", "importance_bpd", "importance_gap_bpd",
    "long_importance_bpd", "long_elbo_bpd", "prior_bpd", "kl_closed_nats", "kl_monte_carlo_nats", "active_units",
    "mutual_information_nats", "marginal_kl_nats", "probe_accuracy", "reparameterised_gradient_variance",
    "score_gradient_variance", "score_baseline_gradient_variance", "refined_bpd", "amortisation_gap_bpd",
}  # fmt: skip
QUALITY = {
    "frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "neighbour_distance",
    "clipped_density", "clipped_coverage", "likelihood_divergence", "likelihood_gap",
}  # fmt: skip
# The divergence is relative to its floor, which is 0.
FLOOR = {f"floor_{name}" for name in QUALITY - {"likelihood_divergence"}}


def cell(**changes):
    training = {"epochs": 2, "batch_size": 32, "learning_rate": 1e-3}
    settings = {
        "data": "digits", "model": Named("vae", (("filters", 4), ("levels", 16))), "z_dim": 2, "beta": 1.0,
        "training": tuple(sorted((training | changes.pop("training", {})).items())), "seed": 0, "limit": 80,
        "evaluation": tuple(EVALUATION.items()), "precision": "float32", "versions": (("model", "v1"),),
    }  # fmt: skip
    return GenerationCell(**settings | changes)


@pytest.fixture
def context(tmp_path):
    return Context(
        results=tmp_path, weights=tmp_path / "weights", device=torch.device("cpu"), suite="test", base=tmp_path,
        environment={"device": {"name": "a CPU"}}, boards=False,
    )  # fmt: skip


def run(context, **changes):
    one = cell(**changes)
    (record,) = run_generation_job(Job(one.weights_key, "generation", (one,)), context)
    return record


def test_a_record_says_it_all(context):
    record = run(context)
    write_record(context.results, record)
    assert read_record(context.results / "cells" / f"{record.id}.json") == record
    assert record.status == "ok"
    assert record.cell == cell().canonical()
    value = {name: metric.value for name, metric in record.metrics.items()}
    assert set(value) == MEASURED | QUALITY | FLOOR
    assert value["rate_bpd"] + value["distortion_bpd"] == pytest.approx(value["test_bpd"])
    assert value["test_bpd"] - value["importance_bpd"] == pytest.approx(value["importance_gap_bpd"])
    for name in ("train_bpd", "validation_bpd", "test_bpd", "importance_bpd", "importance_gap_bpd"):
        metric = record.metrics[name]
        assert (metric.low < metric.value < metric.high, metric.n) == (True, 80)
    assert {name: len(record.curves[name]) for name in ("train_bpd", "validation_bpd")} == {
        "train_bpd": 2, "validation_bpd": 2,
    }  # fmt: skip
    assert record.curves["importance_k"] == [1, 2, 4]
    assert record.curves["prior_l"] == [1, 2, 5, 10, 16]
    assert len(record.evaluation["feature_weights_sha256"]) == 64
    assert set(record.evaluation["seconds"]) == {
        "elbo",
        "bounds",
        "refined posteriors",
        "latent space",
        "gradient estimators",
        "samples",
    }
    assert record.training["epochs"] == 2
    assert record.training["cached"] is False
    assert record.training["parameters"] > 1000
    assert len(record.training["weights_sha256"]) == 64
    assert record.cost["device"] == "a CPU"
    assert record.cost["peak_bytes"] > 0
    assert record.cost["training_images_per_second"] > 0


def test_pictures(context):
    record = run(context, training={"epochs": 11})
    pictures = read_pictures(context.results, record)
    assert {name: array.shape for name, array in pictures.items()} == {
        **{f"samples_epoch_{epoch:04d}": (64, 1, 8, 8) for epoch in (0, 10, 11)},
        "reconstructions": (2, 8, 1, 8, 8),
        "interpolations": (8, 10, 1, 8, 8),
        "neighbours": (2, 8, 1, 8, 8),
        "manifold": (400, 1, 8, 8),
    }
    assert all(array.dtype == np.float32 and 0 <= array.min() <= array.max() <= 1 for array in pictures.values())
    assert "manifold" not in read_pictures(context.results, run(context, z_dim=3))


def test_a_second_run_trains_nothing_and_says_the_same(context, monkeypatch):
    first = run(context)
    expected = read_pictures(context.results, first)

    def no_training(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(generation, "train_vae", no_training)
    second = run(context)
    assert second.metrics == first.metrics
    assert second.curves == first.curves
    assert {name: value for name, value in second.evaluation.items() if name != "seconds"} == {
        name: value for name, value in first.evaluation.items() if name != "seconds"
    }
    assert second.training == first.training | {"cached": True}
    for name, array in read_pictures(context.results, second).items():
        assert np.array_equal(array, expected[name])


def test_the_same_cell_elsewhere_gives_the_same_numbers(context, tmp_path):
    first = run(context)
    context.weights = tmp_path / "elsewhere"
    assert run(context).metrics == first.metrics
    assert run(context, seed=1).metrics != first.metrics


def test_a_damaged_cache_is_named(context):
    record = run(context)
    (kept,) = context.weights.glob("*.npz")
    kept.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(InputError, match=r"\.npz: not a picture archive .*; delete it and the next run trains anew"):
        run(context)
    kept.unlink()
    assert run(context).metrics == record.metrics


def test_divergence_reaches_the_runner(context):
    with pytest.raises(TrainingDiverged, match="at step"):
        run(context, training={"learning_rate": 1e20})


def test_one_example_has_no_interval(context):
    record = run(context, limit=1, evaluation=tuple((EVALUATION | {"generated": 0}).items()))
    assert record.metrics["test_bpd"].low is None
    assert record.metrics["test_bpd"].n == 1


def test_a_model_that_measures_nothing_finite_fails_with_a_message(context, monkeypatch):
    monkeypatch.setattr(
        "epsbench.harness.run.generative.evaluate.negative_elbo",
        lambda vae, part, seed: (torch.full((len(part), 2), torch.nan), encode(vae, part)),
    )
    with pytest.raises(
        ArithmeticError, match="the ELBO: 80 of 80 measured values are no finite number; bound the encoder's log-std"
    ):
        run(context)


def test_what_is_left_of_a_checkpoint_goes_with_the_weights(context):
    first = run(context)
    (weights,) = [path for path in context.weights.glob("*.safetensors") if path.stem == cell().weights_key]
    left = weights.with_suffix(".checkpoint")
    left.write_bytes(b"a kill came between the weights and this")
    assert run(context).training == first.training | {"cached": True}
    assert not left.exists()


def test_weights_without_their_pictures_are_not_used_after_a_kill(context, monkeypatch):
    first = run(context)
    pictures = read_pictures(context.results, first)
    archive, weights = (context.weights / f"{cell().weights_key}.{end}" for end in ("npz", "safetensors"))
    archive.unlink()

    def killed(vae, data, recipe, beta, settings, hooks):
        hooks.on_pictures(0, vae)
        assert not weights.exists()  # another process would take them, with this one picture
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generation, "train_vae", killed)
        with pytest.raises(KeyboardInterrupt):
            run(context)
    again = run(context)
    assert again.training["cached"] is False
    assert again.training["weights_sha256"] == first.training["weights_sha256"]
    assert read_pictures(context.results, again).keys() == pictures.keys()


def test_an_autoencoder_has_no_bound(context):
    record = run(context, model=Named("autoencoder", (("filters", 4), ("levels", 16))), z_dim=2)
    assert set(record.metrics) == {"distortion_bpd"} | QUALITY | FLOOR
    assert set(record.curves) == {"train_distortion_bpd", "validation_distortion_bpd"}
    assert _line(record, "the cell").split() == [
        f"{record.metrics['distortion_bpd'].value:.3f}", "bpd,", "distortion", "the", "cell",
    ]  # fmt: skip


def test_too_few_images_for_sample_quality_raise_before_training(context):
    few = cell(limit=5)
    with pytest.raises(InputError, match="needs more images than 5; raise limit or generated"):
        preflight([Job(few.weights_key, "generation", (few,))], context)
    assert not context.weights.exists()
