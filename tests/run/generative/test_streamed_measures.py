"""Generative measures on streamed data give what they give from memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.generative import neighbours
from epsbench.harness.run.runner import run_suite

SUITE = """
[generation]
data = "data.npz"
training = { epochs = 1 }
evaluation = { generated = 60, importance_samples = 3, refinement_steps = 0 }
[generation.matrix]
model = { name = "vae", filters = 4 }
z_dim = 3
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    rng = np.random.RandomState(0)
    labels = np.arange(300) % 3
    images = (rng.rand(300, 1, 8, 8) * 120).astype(np.uint8)
    images[:, :, 2:6, 2:6] += (labels * 60).astype(np.uint8)[:, None, None, None]
    np.savez(tmp_path / "data.npz", images=images[:80], labels=labels[:80], x_train=images[80:], y_train=labels[80:])
    (tmp_path / "own.toml").write_text(SUITE)
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def measured(data, name):
    options = Options(quiet=True, device="cpu", compile="off", weights=data / "weights")
    assert run_suite(load_suite(str(data / "own.toml")), data / name, options) == 0
    (record,) = read_records(data / name)
    return record


def test_all_measures_are_those_from_memory(data, monkeypatch):
    expected = measured(data, "memory")
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")
    monkeypatch.setattr(neighbours, "AMONG", 50)  # several parts of the training images
    record = measured(data, "streamed")
    assert record.metrics == expected.metrics
    assert "neighbour_distance" in record.metrics
    assert [each.code for each in record.findings] == [each.code for each in expected.findings]


def test_the_nearest_image_does_not_depend_on_the_parts(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images, among = (torch.randint(0, 16, (n, 1, 3, 3), generator=generator, dtype=torch.uint8) for n in (40, 500))
    among[123] = among[7] = images[3]  # of two that are equally near the first counts
    distance, index = neighbours.nearest(images, among)
    assert index[3] == 7
    loop = (images.flatten(1)[:, None].double() - among.flatten(1)[None].double()).square().sum(2).sqrt()
    torch.testing.assert_close(distance, loop.min(1).values.float())
    monkeypatch.setattr(neighbours, "AMONG", 7)
    again = neighbours.nearest(images, among)
    assert torch.equal(again[0], distance)
    assert torch.equal(again[1], index)
