"""A network that holds something outside its state dict is not taken for the one that was trained."""

from __future__ import annotations

import copy

import pytest
import torch
from small import QUIET
from torch import nn

import epsbench
from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training.answers import NUMBERS, ROWS, answers_of, changed
from epsbench.models.vae import Encoder, VAENetwork

SHAPE = (1, 8, 8)
CODE = """
from dataclasses import dataclass
import torch
from torch import nn
from epsbench.models.generative import VAE
from epsbench.models.vae import Encoder, VAENetwork

class Centred(Encoder):
    centre = 0.0
    def forward(self, x):
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        return super().forward(x - self.centre)

@dataclass(frozen=True)
class Mine(VAE):
    def build(self, data, z_dim=20):
        return VAENetwork(data.shape, z_dim, 4, 4, encoder=Centred(data.shape, z_dim, 4))

class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.centre = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 0.0
    def forward(self, x):
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        return self.layers(x - self.centre)

def classifier():
    return Classifier()
"""
GENERATION = """
[generation]
data = "digits"
limit = 60
[generation.training]
epochs = 20
learning_rate = 5e-3
[generation.evaluation]
importance_samples = {samples}
prior_samples = 0
generated = 0
gradient_samples = 0
[generation.matrix]
model = "mine.py:Mine"
z_dim = 2
"""
ROBUSTNESS = """
[robustness]
data = "digits"
limit = 60
[robustness.training]
epochs = 2
[robustness.matrix]
model = "mine.py:classifier"
attack = "fgsm"
eps = 0.1
"""


def suite(folder, text):
    (folder / "mine.py").write_text(CODE, encoding="utf-8")
    (folder / "suite.toml").write_text(text, encoding="utf-8")
    return load_suite(str(folder / "suite.toml"))


def test_a_vae_with_a_running_mean_of_its_own_is_refused_when_its_weights_are_loaded(tmp_path):
    results = tmp_path / "r"
    assert run_suite(suite(tmp_path, GENERATION.format(samples=0)), results, QUIET) == 0
    refusal = r"weights/\w+\.safetensors: the model is not the one whose .*its encoder .*make that a buffer"
    with pytest.raises(InputError, match=refusal):  # other cells with the same weights
        run_suite(suite(tmp_path, GENERATION.format(samples=2)), results, QUIET)
    with pytest.raises(InputError, match=refusal):
        epsbench.load_model(results, base=tmp_path)


def test_so_is_a_classifier_that_is_loaded_without_its_data(tmp_path):
    run_suite(suite(tmp_path, ROBUSTNESS), tmp_path / "r", QUIET)
    with pytest.raises(InputError, match="the network gives other numbers"):
        epsbench.load_model(tmp_path / "r", base=tmp_path)


def vae(**parts):
    torch.manual_seed(0)
    return VAENetwork(SHAPE, 3, 4, 4, **parts)


def test_every_part_is_asked_and_the_one_that_changed_is_named():
    network = vae()
    answers = answers_of(network, SHAPE)
    assert {part: torch.tensor(rows).shape for part, rows in answers.items()} == dict.fromkeys(
        ("its encoder", "its decoder", "its prior"), (ROWS, NUMBERS)
    )
    assert changed(answers, copy.deepcopy(network), SHAPE) is None
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.decoder.layers[-2].bias.add_(0.1)
    assert changed(answers, other, SHAPE) == "its decoder"
    assert changed({}, other, SHAPE) is None, "weights of an earlier version have no answers"


class Random(nn.Module):
    def forward(self, x):
        return torch.rand(len(x), 10)


class Raising(Encoder):
    def forward(self, x):
        raise RuntimeError("planted")


def test_what_cannot_be_compared_is_left_out():
    assert answers_of(Random(), SHAPE) == {}
    assert answers_of(vae(encoder=Raising(SHAPE, 3, 4)), SHAPE).keys() == {"its decoder", "its prior"}


def test_asking_draws_no_number():
    state = torch.get_rng_state()
    answers_of(Random(), SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
