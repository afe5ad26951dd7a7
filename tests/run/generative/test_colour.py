"""A VAE of colour images, from its suite to a report with colour pictures."""

from __future__ import annotations

import numpy as np
import pytest

import epsbench
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_pictures


def test_the_suite_trains_what_it_says():
    (cell,) = load_suite("vae-cifar10").cells
    model = cell.model.as_dict()
    assert (cell.data, model["levels"], model["likelihood"]) == (
        "cifar10", 256, {"name": "discretised-logistic", "components": 5},
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Red squares of many sizes on a noisy ground, in 256 levels."""
    folder = tmp_path_factory.mktemp("colour")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (150, 3, 8, 8), dtype=np.uint8)
    for image, size in zip(images, generator.integers(2, 6, 150), strict=True):
        image[0, 2 : 2 + size, 2 : 2 + size] = 250
    labels = np.arange(150) % 2
    arrays = {"x_train": images[:100], "y_train": labels[:100], "x": images[100:], "y": labels[100:]}
    np.savez(folder / "squares.npz", **arrays)
    (folder / "colour.toml").write_text(
        '[generation]\ndata = "squares.npz"\nprecision = "float32"\n'
        "training = { epochs = 6, batch_size = 20, learning_rate = 5e-3 }\n"
        "[generation.evaluation]\nimportance_samples = 4\nprior_samples = 20\ngenerated = 40\ngradient_samples = 2\n"
        "refinement_steps = 2\nrefined_images = 20\n[generation.matrix]\nz_dim = 4\n"
        'model = { name = "residual-vae", filters = 6, hidden = 24, levels = 256, likelihood = '
        '{ name = "discretised-logistic", components = 2 } }\n',
        encoding="utf-8",
    )
    epsbench.run_suite(
        epsbench.load_suite(str(folder / "colour.toml")),
        folder / "out",
        epsbench.Options(quiet=True, device="cpu", compile="off"),
    )
    return folder / "out"


def test_it_learns_and_every_measure_is_taken(results):
    (record,) = epsbench.records(results)
    assert (record.status, record.findings) == ("ok", ())
    values = {name: metric.value for name, metric in record.metrics.items()}
    assert values["test_bpd"] < 8  # what 256 levels cost without a model
    assert record.curves["train_bpd"][-1] < record.curves["train_bpd"][0]
    assert {"importance_bpd", "prior_bpd", "refined_bpd", "frechet_distance", "coverage", "active_units"} <= set(values)
    assert values["importance_bpd"] < values["test_bpd"]


def test_its_pictures_have_colours_and_are_in_the_report(results):
    (record,) = epsbench.records(results)
    pictures = read_pictures(results, record)
    samples = pictures[max(name for name in pictures if name.startswith("samples_epoch"))]
    assert samples.shape == (64, 3, 8, 8)
    assert pictures["reconstructions"].shape[2:] == (3, 8, 8)
    # Red where the square is, in samples as in images.
    red, green = (pictures["reconstructions"][1, :, channel, 2:4, 2:4].mean() for channel in (0, 1))
    assert red > green + 0.2
    page = str(epsbench.report(results, format="html"))
    assert "data:image/png;base64," in page
