"""A generation job from cell to record, on the digits, and its cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.errors import InputError
from harness.records import read_pictures, read_record, write_record
from harness.run import generation
from harness.run.context import Context
from harness.run.generation import manifold, run_generation_job, samples
from harness.run.training import TrainingDiverged
from harness.spec.cell import GenerationCell, Named
from harness.spec.plan import Job
from models.vae import VAENetwork


def cell(**changes):
    training = {"epochs": 2, "batch_size": 32, "learning_rate": 1e-3}
    settings = {
        "data": "digits", "model": Named("vae", (("filters", 4), ("levels", 16))), "z_dim": 2, "beta": 1.0,
        "training": tuple(sorted((training | changes.pop("training", {})).items())), "seed": 0, "limit": 80, "evaluation": (),
        "precision": "float32", "versions": (("model", "v1"),),
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
    assert set(value) == {"train_bpd", "validation_bpd", "test_bpd", "rate_bpd", "distortion_bpd"}
    assert value["rate_bpd"] + value["distortion_bpd"] == pytest.approx(value["test_bpd"])
    assert all(metric.low < metric.value < metric.high and metric.n == 80 for metric in record.metrics.values())
    assert {name: len(values) for name, values in record.curves.items()} == {"train_bpd": 2, "validation_bpd": 2}
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
    record = run(context, limit=1)
    assert record.metrics["test_bpd"].low is None
    assert record.metrics["test_bpd"].n == 1


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
