"""Networks and defenses that draw numbers of their own, or remember something: a kill changes nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small import RECIPE
from torch import nn

from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import train_classifier
from epsbench.harness.run.training.own_state import OwnState
from epsbench.harness.run.training.seeding import reproducibly, seeded
from epsbench.harness.run.training.settings import Hooks, Method, Settings
from epsbench.harness.run.training.step_form import Form
from epsbench.harness.run.training.vae import train_vae
from epsbench.models.defenses import Defense, NoDefense
from epsbench.models.vae import VAENetwork

VAE_RECIPE = {"epochs": 3, "batch_size": 32, "learning_rate": 1e-2}


class Stopped(Exception):  # noqa: N818 - it is what a kill would do
    pass


class Noisy(nn.Sequential):
    """Scales its images in training by a number that a subclass draws or counts."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))

    def forward(self, x):
        return super().forward(x * float(self.scale()) if self.training else x)


class OfNumpy(Noisy):
    def scale(self):
        return np.random.rand()


class OfPython(Noisy):
    def scale(self):
        return random.random()


class OwnTorch(Noisy):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def scale(self):
        return torch.rand((), generator=self.generator)


class OwnNumpy(Noisy):
    """Its generator is made when it is first needed."""

    generator = None

    def scale(self):
        self.generator = self.generator or np.random.default_rng(3)
        return self.generator.random()


class OwnLegacyNumpy(Noisy):
    def __init__(self):
        super().__init__()
        self.generator = np.random.RandomState(3)

    def scale(self):
        return self.generator.rand()


class OwnPython(Noisy):
    def __init__(self):
        super().__init__()
        self.generator = random.Random(3)

    def scale(self):
        return self.generator.random()


class Counting(Noisy):
    def __init__(self):
        super().__init__()
        self.steps, self.tensor, self.array, self.number = 0, torch.zeros(2), np.zeros(2), np.float32(0)

    def scale(self):
        self.steps += 1
        self.tensor, self.array, self.number = self.tensor + 0.1, self.array + 0.1, self.number + np.float32(0.1)
        return self.tensor[0] * self.array[0] * self.number / self.steps


@dataclass(frozen=True)
class Mixup(Defense):
    """The usual mixup, which draws from NumPy (Zhang et al., 2018)."""

    def loss(self, trainee, x, y):
        share, order = np.random.beta(1, 1), torch.from_numpy(np.random.permutation(len(x)))
        logits = trainee.logits(share * x + (1 - share) * x[order], y)
        return share * trainee.cross_entropy(logits, y) + (1 - share) * trainee.cross_entropy(logits, y[order])


@dataclass(frozen=True)
class Remembering(Defense):
    """Has a weight that halves with every batch."""

    def __post_init__(self):
        object.__setattr__(self, "weight", 1.0)

    def loss(self, trainee, x, y):
        object.__setattr__(self, "weight", self.weight / 2)
        return self.weight * trainee.loss(x, y)


def train(data, build, checkpoint, stops=(), defense=NoDefense, **more):
    """The trained weights; the training is stopped after some epochs and goes on from the checkpoint."""
    stops = list(stops)

    def on_epoch(epoch, values):
        if epoch in stops:
            stops.remove(epoch)
            raise Stopped

    while True:
        network, settings = seeded(build, 0), Settings(0, "float32", checkpoint=checkpoint)
        hooks = Hooks(on_epoch=on_epoch)
        try:
            if isinstance(network, VAENetwork):
                train_vae(network, data, VAE_RECIPE | more, 1.0, settings, hooks)
            else:
                recipe = RECIPE | {"epochs": 3, "batch_size": 32, "optimizer": "sgd"}
                train_classifier(network, data, Method(defense(), "none", recipe), settings, hooks)
        except Stopped:
            continue
        return network.state_dict()


class Annealed(VAENetwork):
    """The weight of the rate rises with the steps, as this network counts them."""

    def __init__(self):
        super().__init__((1, 8, 8), 3, 4, 4)
        self.steps = 0

    def elbo(self, x, noise):
        distortion, rate = super().elbo(x, noise)
        self.steps += self.training
        return distortion, rate * min(1, self.steps / 6)


NETWORKS = (OfNumpy, OfPython, OwnTorch, OwnNumpy, OwnLegacyNumpy, OwnPython, Counting, Annealed)


@pytest.mark.parametrize(
    ("build", "defense"),
    [(each, NoDefense) for each in NETWORKS]
    + [(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), each) for each in (Mixup, Remembering)],
)
def test_a_stopped_training_ends_at_the_same_weights(few, tmp_path, build, defense):
    whole = train(few, build, Checkpoint(None), defense=defense)
    again = train(few, build, Checkpoint(None), defense=defense)
    stopped = train(few, build, Checkpoint(tmp_path / "x.checkpoint", every=0), (2, 3), defense=defense)
    for other in (again, stopped):
        assert all(torch.equal(value, other[name]) for name, value in whole.items())


@pytest.mark.parametrize("more", [{"encoder_noise": 0.1}, {"encoder_batches": "samples"}])
def test_what_a_copy_of_the_vae_counts_is_kept_too(few, tmp_path, more):
    whole = train(few, Annealed, Checkpoint(None), **more)
    stopped = train(few, Annealed, Checkpoint(tmp_path / "x.checkpoint", every=0), (2, 3), **more)
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())


def test_the_global_generators_are_left_as_they_were():
    numpy, python = np.random.get_state()[1].tolist(), random.getstate()
    with reproducibly(0, torch.device("cpu"), "float32"):
        first = np.random.rand(), random.random()
    assert np.random.get_state()[1].tolist() == numpy
    assert random.getstate() == python
    with reproducibly(0, torch.device("cpu"), "float32"):
        assert (np.random.rand(), random.random()) == first


def test_only_what_changed_is_kept_and_the_rest_goes_back():
    network = Counting()
    own = OwnState(network)
    assert own.state_dict() == {}
    network.steps, network[1].note = 7, "new"
    state = own.state_dict()
    assert state == {"network.": {"steps": {"plain": 7}}, "network.1": {"note": {"plain": "new"}}}
    network.scale()
    own.load_state_dict(state)
    assert (network.steps, network.tensor.tolist(), network.number) == (7, [0, 0], 0)
    assert type(network.number) is np.float32


def test_a_generator_that_is_shared_stays_shared():
    network = OwnTorch()
    own, shared = OwnState(network), network.generator
    network.scale()
    state, following = own.state_dict(), network.scale()
    own.load_state_dict(state)
    assert network.generator is shared
    assert network.scale() == following


def test_what_the_trials_of_a_form_count_is_taken_back(few, monkeypatch):
    """A long training is tried in several forms before it begins."""
    plain, network, counted = train(few, Annealed, Checkpoint(None)), seeded(Annealed, 0), []

    def tried(network, make, batch, steps, wanted):
        make(Form())(*batch)[0].backward()
        network.zero_grad(set_to_none=True)
        counted.append(network.steps)
        return Form()

    monkeypatch.setattr("epsbench.harness.run.training.vae.fastest_form", tried)
    train_vae(network, few, VAE_RECIPE, 1.0, Settings(0, "float32", compile="auto"))
    assert counted == [1]
    assert all(torch.equal(value, plain[name]) for name, value in network.state_dict().items())
