"""The classifier behind sample quality: trained once, the same each time, and what its features are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from epsbench.harness.errors import InputError
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.generative import features as module
from epsbench.harness.run.generative.features import feature_network, features, recipe
from epsbench.harness.run.training.weights import digest
from epsbench.models.catalogue import SmallCNN


@pytest.fixture(scope="module")
def small() -> Data:
    return load_data("digits", None, torch.device("cpu"), 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def trained(small, folder):
    return feature_network(small, folder)


def test_it_learns_the_classes_and_says_which_weights_it_has(trained, small):
    network, entries = trained
    logits = network(small.test.pixels())
    assert entries["feature_accuracy"] == pytest.approx((logits.argmax(1) == small.test.labels).float().mean().item())
    assert entries["feature_accuracy"] > 0.85
    assert entries["feature_weights_sha256"] == digest(network.state_dict())
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())


def test_the_same_weights_whatever_the_global_random_state(trained, small, tmp_path):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert feature_network(small, tmp_path)[1] == trained[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_trained_once_a_folder(trained, small, folder, monkeypatch):
    monkeypatch.setattr(module, "train_classifier", None)
    monkeypatch.setattr(module, "turn", None)  # a read-only folder has no place for a lock
    network, entries = feature_network(small, folder)
    assert entries == trained[1]
    assert torch.equal(features(network, small.test.pixels()), features(trained[0], small.test.pixels()))


def test_other_data_has_other_weights(trained, small, folder, monkeypatch):
    seen = []

    def train(network, data, *args):
        seen.append(len(data.train))

    monkeypatch.setattr(module, "train_classifier", train)
    feature_network(load_data("digits", None, torch.device("cpu"), 100), folder)
    feature_network(replace(small, description=replace(small.description, split_seed=1)), folder)
    assert seen == [100, 200]


def test_features_are_what_the_logits_are_made_of(trained, small, monkeypatch):
    network, _ = trained
    pixels = small.test.pixels()
    units = features(network, pixels)
    assert units.shape == (len(pixels), SmallCNN().hidden)
    assert units.dtype == torch.float32
    assert units.min() == 0
    torch.testing.assert_close(network.layers[-1](units), network(pixels))
    monkeypatch.setattr(module, "EVALUATION_BATCH", 7)
    torch.testing.assert_close(features(network, pixels), units)


def test_about_as_many_steps_whatever_the_size():
    assert [recipe(n)["epochs"] for n in (54_000, 45_000, 1197, 80)] == [3, 4, 100, 100]


def test_images_it_cannot_take(small, tmp_path):
    tiny = replace(small, description=replace(small.description, shape=(1, 3, 8)))
    with pytest.raises(InputError, match=r"data 'digits'.*at least 4.*set generated = 0"):
        feature_network(tiny, tmp_path)
