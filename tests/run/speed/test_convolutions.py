"""Strided convolutions that go backward as sub-pixel convolutions, against autograd's own gradient."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from epsbench.attacks.pgd import PGD
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.speed.accelerate import accelerate
from epsbench.harness.run.speed.convolutions import SubpixelConv2d, subpixel, subpixel_gradient, subpixel_gradients
from epsbench.harness.run.speed.prepare import _forms, prepare
from epsbench.harness.run.training.classifier import train_classifier
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Method, Settings, Training
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.models.catalogue import ResNet18, SmallCNN
from epsbench.models.defenses import TRADES, Defense, NoDefense, PGDBatch

CPU = torch.device("cpu")


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Sizes of an input, a kernel, a stride and a padding that fit together, rows and columns apart."""
    axes = []
    for _ in range(2):
        kernel, stride, padding = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(0, 3))
        axes.append((draw(st.integers(max(1, kernel - 2 * padding), 13)), kernel, stride, padding))
    sizes, kernels, strides, paddings = zip(*axes, strict=True)
    return sizes, kernels, strides, paddings


@settings(max_examples=150, deadline=None)
@given(convolutions(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_the_gradient_is_autograds_for_every_shape(shape, inputs, outputs, seed):
    size, kernel, stride, padding = shape
    torch.manual_seed(seed)
    x = torch.randn(2, inputs, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(outputs, inputs, *kernel, dtype=torch.float64)
    result = F.conv2d(x, weight, None, stride, padding)
    gradient = torch.randn_like(result)
    (expected,) = torch.autograd.grad(result, x, gradient)
    found = subpixel_gradient(gradient, weight, size, stride, padding)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def all_gradients(layer: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """Of the input, the weight and the bias."""
    x = x.detach().requires_grad_(True)
    result = layer(x)
    return list(torch.autograd.grad((result * result.detach().sin()).sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_gives_all_gradients(bias: bool):
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 4, stride=2, padding=1, bias=bias).double()
    x = torch.randn(4, 3, 9, 11, dtype=torch.float64)
    expected = all_gradients(layer, x)
    assert subpixel(layer) == 1
    for found, wanted in zip(all_gradients(layer, x), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_gradient_of_a_gradient_is_there_too():
    """A defense that penalises input gradients differentiates them by the weights."""
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 2, 4, stride=2, padding=1).double()
    subpixel(layer)

    def of(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,)).tanh()

    given = (torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True), layer.weight, layer.bias)
    assert torch.autograd.gradcheck(of, given)
    assert torch.autograd.gradgradcheck(of, given)


def test_a_bias_alone_may_be_trained():
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 2, 4, stride=2, padding=1).double()
    layer.weight.requires_grad_(False)
    quick = copy.deepcopy(layer)
    subpixel(quick)
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    expected, found = (torch.autograd.grad(each(x).tanh().sum(), each.bias)[0] for each in (layer, quick))
    torch.testing.assert_close(found, expected)


def test_one_image_without_a_batch_goes_the_usual_way():
    layer = nn.Conv2d(1, 2, 4, stride=2, padding=1)
    subpixel(layer)
    x = torch.rand(1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert gradient.shape == x.shape


def test_a_frozen_layer_does_not_keep_its_input():
    layer = nn.Conv2d(1, 2, 4, stride=2).requires_grad_(False)
    subpixel(layer)
    result = layer(torch.rand(1, 1, 8, 8, requires_grad=True))
    assert [kept is not None for kept in result.grad_fn.saved_tensors] == [False, True]


def test_what_autocast_computes_goes_back_in_its_precision():
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 4, 4, stride=2, padding=1)
    quick = copy.deepcopy(layer)
    subpixel(quick)
    gradients = []
    for each in (layer, quick):
        x = torch.linspace(0, 1, 128).reshape(2, 1, 8, 8).requires_grad_(True)
        with autocast(CPU, "bf16"):
            result = each(x)
        assert result.dtype == torch.bfloat16
        result.float().square().sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == each.weight.grad.dtype == torch.float32
        gradients.append((x.grad, each.weight.grad, each.bias.grad))
    for found, wanted in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)


def test_only_what_gains_is_changed():
    layers = nn.ModuleDict(
        {
            "few channels": nn.Conv2d(3, 8, 4, stride=2),
            "no stride": nn.Conv2d(3, 8, 3),
            "many channels": nn.Conv2d(64, 8, 4, stride=2),
            "grouped": nn.Conv2d(4, 8, 4, stride=2, groups=2),
            "dilated": nn.Conv2d(3, 8, 4, stride=2, dilation=2),
            "reflecting": nn.Conv2d(3, 8, 4, stride=2, padding=1, padding_mode="reflect"),
            "another class": SubclassedConv2d(3, 8, 4, stride=2),
            "complex": nn.Conv2d(3, 8, 4, stride=2, dtype=torch.complex64),
        }
    )
    assert subpixel(layers) == 1
    assert {name for name, layer in layers.items() if type(layer) is SubpixelConv2d} == {"few channels"}


class SubclassedConv2d(nn.Conv2d):
    """Whose forward may be anything."""


@pytest.mark.parametrize(("architecture", "count"), [(SmallCNN(), 2), (ResNet18(width=8), 1), (ResNet18(), 0)])
def test_the_networks_here(architecture, count: int):
    network = architecture.build(DATASETS["cifar10"])
    state = list(network.state_dict())
    with subpixel_gradients(network, CPU):
        assert sum(type(module) is SubpixelConv2d for module in network.modules()) == count
        assert list(network.state_dict()) == state
    assert not any(type(module) is SubpixelConv2d for module in network.modules())


def test_it_is_undone_when_the_block_raises():
    layer = nn.Conv2d(1, 2, 4, stride=2)
    with pytest.raises(KeyError), subpixel_gradients(layer, CPU):
        raise KeyError
    assert type(layer) is nn.Conv2d


def test_elsewhere_than_on_a_cpu_nothing_is_changed():
    layer = nn.Conv2d(1, 2, 4, stride=2)
    with subpixel_gradients(layer, torch.device("cuda")):
        assert type(layer) is nn.Conv2d


RECIPE = {
    "epochs": 3, "batch_size": 64, "optimizer": "adam", "learning_rate": 5e-3, "weight_decay": 0.0, "momentum": 0.9,
    "schedule": "one-cycle", "step_epochs": 1, "gamma": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", None, CPU)


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
        weights.append(torch.cat([value.flatten() for value in network.state_dict().values()]))
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
    forms = [victim.form for victim in _forms(network, torch.device("meta"), [])]
    assert forms == ["channels-last"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Dynamo's own imports warn
def test_it_compiles(data):
    network, training = trained(data, compile="on")
    assert str(training.form) == "channels-last, sub-pixel gradients, compiled"
    assert not training.form.refused
    x, y = data.test.pixels(slice(0, 64)), data.test.labels[:64]
    victim = prepare(network, CPU, "float32", x[:16], y[:16])
    accelerate(victim, Targets(lambda at: x[at], y, torch.arange(64)), 64, 10, "on")
    assert victim.compile_seconds > 0
    assert not victim.findings
