"""Trainings and attacks with strided convolutions that go backward as sub-pixel convolutions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import small
import torch
from small import flat
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from epsbench.attacks.pgd import PGD
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.speed.accelerate import Work, accelerate
from epsbench.harness.run.speed.convolutions import SubpixelConv2d, subpixel_gradients
from epsbench.harness.run.speed.prepare import _forms, prepare
from epsbench.harness.run.training.classifier import train_classifier
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Method, Settings, Training
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.models.catalogue import SmallCNN
from epsbench.models.defenses import TRADES, Defense, NoDefense, PGDBatch

CPU = torch.device("cpu")
RECIPE = small.RECIPE | {"epochs": 3}


def kinds(network: nn.Module) -> set[type[nn.Module]]:
    return {type(module) for module in network.modules() if isinstance(module, nn.Conv2d)}


def trained(data: Data, defense: Defense = NoDefense(), **options: Any) -> tuple[nn.Module, Training]:  # noqa: B008
    network = seeded(lambda: SmallCNN().build(data.description), 0)
    return network, train_classifier(
        network, data, Method(defense, "none", RECIPE), Settings(seed=0, precision="float32", **options)
    )


def test_training_uses_it_and_gives_the_network_back_as_it_was(data):
    network = seeded(lambda: SmallCNN().build(data.description), 0)
    seen = []
    training = train_classifier(
        network,
        data,
        Method(NoDefense(), "none", RECIPE),
        Settings(seed=0, precision="float32"),
        Hooks(on_step=lambda: seen.append(kinds(network))),
    )
    assert set(map(frozenset, seen)) == {frozenset({SubpixelConv2d})}
    assert kinds(network) == {nn.Conv2d}
    assert training.form.entries()["form"] == "channels-last, sub-pixel gradients"


def test_training_that_stops_gives_the_network_back_as_it_was(data):
    network = seeded(lambda: SmallCNN().build(data.description), 0)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_classifier(
            network,
            data,
            Method(NoDefense(), "none", RECIPE),
            Settings(seed=0, precision="float32"),
            Hooks(on_step=stop),
        )
    assert kinds(network) == {nn.Conv2d}


@pytest.mark.parametrize("defense", [PGDBatch(Fraction(1, 10), steps=2), TRADES(Fraction(1, 10), steps=2)], ids=repr)
def test_training_learns_what_it_learned(data, defense):
    """The same but for rounding, which two steps do not blow up; six of them do, on some numbers of threads."""
    weights = []
    for options in ({"subpixel": True}, {"subpixel": False}):
        network = seeded(lambda: SmallCNN().build(data.description), 0)
        few = Data(data.description, data.train[:128], data.validation, data.test)
        train_classifier(
            network,
            few,
            Method(defense, "none", RECIPE | {"epochs": 1}),
            Settings(seed=0, precision="float32", **options),
        )
        weights.append(flat(network))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


class Counting(TorchDispatchMode):
    """How often the library's backward pass of a convolution is called."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.convolution_backward.default
        return function(*args, **(kwargs or {}))


def test_looking_for_images_takes_no_gradient_of_weights(data):
    network = seeded(lambda: SmallCNN().build(data.description), 0)
    trainee = ClassifierInTraining(network, torch.Generator().manual_seed(0), "float32")
    x, y = data.train.pixels(slice(0, 16)), data.train.labels[:16]
    with subpixel_gradients(network, CPU), Counting() as backward:
        before = trainee.loss(x, y)
        trainee.attack(PGD(steps=3), x, y, 0.1)
        trainee.gradient(x, lambda logits: logits.square().sum())
        assert backward.count == 0
        before.backward()  # of the graph that stood before the weights looked away
        assert backward.count == 2
    assert all(weight.requires_grad and weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_victim_of_it_finds_what_a_plain_one_finds(data, precision):
    network, _ = trained(data)
    network.train()
    x, y = data.test.pixels(slice(0, 150)), data.test.labels[:150]
    victim = prepare(network, CPU, precision, x[:16], y[:16])
    assert victim.form == "channels-last, sub-pixel gradients"
    assert not victim.findings
    assert kinds(network) == {nn.Conv2d}
    judge = Judge(network, CPU)
    right = (judge.logits(x, 64).argmax(1) == y).nonzero().flatten()
    targets = Targets(lambda at: x[right][at], y[right], right)
    plain = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")

    def fooled(of: Victim, batch: int) -> np.ndarray:
        attack = PGD(steps=5, random_start=True)
        outcomes = Engine(of, judge, targets, batch).run(attack, [Fraction(1, 20), Fraction(1, 10)], seed=0)
        return np.stack([outcome.fooled for outcome in outcomes])

    expected = fooled(plain, 64)
    assert 0 < expected.mean() < 1
    for batch in (1, 7, 64):
        differing = (fooled(victim, batch) != expected).mean()
        assert differing == 0 if precision == "float32" else differing < 0.03


def test_a_device_with_kernels_of_its_own_is_left_alone(data):
    network = SmallCNN().build(data.description).eval()
    meta = torch.device("meta")
    forms = [victim.form for victim in _forms(network, meta, torch.rand(2, *data.description.shape, device=meta), [])]
    assert forms == ["channels-last"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Dynamo's own imports warn
def test_it_compiles(data):
    network, training = trained(data, compile="on")
    assert str(training.form) == "channels-last, sub-pixel gradients, compiled"
    assert not training.form.refused
    x, y = data.test.pixels(slice(0, 64)), data.test.labels[:64]
    victim = prepare(network, CPU, "float32", x[:16], y[:16])
    accelerate(victim, Targets(lambda at: x[at], y, torch.arange(64)), 64, Work(10), "on")
    assert victim.compile_seconds > 0
    assert not victim.findings
