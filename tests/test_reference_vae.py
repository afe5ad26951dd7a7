"""The trained VAE that comes along: it loads in one line, and measures what its record says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import epsbench
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.training.vae import evaluate_vae
from epsbench.harness.run.training.weights import digest

FOLDER = Path(__file__).parents[1] / "results" / "reference" / "vae-small"


@pytest.fixture(scope="module")
def vae():
    return epsbench.load_model(FOLDER, z_dim=20)


@pytest.fixture(scope="module")
def record():
    (record,) = epsbench.records(FOLDER)
    return record


def test_it_generates_encodes_decodes_and_interpolates(vae):
    torch.manual_seed(0)
    images = vae.generate(4)
    between = vae.interpolate(images[:1], images[1:2], steps=5)
    assert images.shape == vae.reconstruct(images).shape == (4, *DATASETS["mnist"].shape)
    assert between.shape == (1, 5, *DATASETS["mnist"].shape)
    torch.testing.assert_close(between[0, [0, -1]], vae.reconstruct(images[:2]))
    # Digits are black with some white, and differ from each other.
    assert 0.05 < images.mean().item() < 0.3
    assert (images[0] - images[1]).abs().mean().item() > 0.02
    again = vae.generate(4, torch.Generator().manual_seed(1))
    assert torch.equal(again, vae.generate(4, torch.Generator().manual_seed(1)))


def test_its_weights_are_those_of_the_record_and_small(vae, record):
    (path,) = (FOLDER / "weights").glob("*.safetensors")
    assert path.stat().st_size < 1.1e6
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    assert digest(state) == record.training["weights_sha256"]
    assert all(torch.equal(value, state[name]) for name, value in vae.state_dict().items())


@pytest.mark.skipif(not os.environ.get("EPSBENCH_DATA"), reason="needs MNIST in EPSBENCH_DATA")
def test_it_measures_what_its_record_says(vae, record):
    """On the first 500 test images, the ELBO and the bound of the same images that the record has."""
    data = load_data("mnist", Path(os.environ["EPSBENCH_DATA"]), torch.device("cpu"))
    images = data.test[slice(0, 500)]
    parts = evaluate_vae(vae, images, record.cell["seed"], "float32")
    bpd = parts.sum(1).mean().item()
    refined, gap = record.metrics["refined_bpd"], record.metrics["amortisation_gap_bpd"]
    assert (refined.n, gap.n) == (500, 500)
    assert bpd == pytest.approx(refined.value + gap.value, abs=1e-4)
    assert record.metrics["test_bpd"].low < record.metrics["test_bpd"].value < 0.58
