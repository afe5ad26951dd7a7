"""Strided 1 × 1 convolutions of few channels keep function and gradients, in a form that oneDNN computes rightly."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from epsbench.harness.run.machine.environment import of_child
from epsbench.harness.run.training.sliced import SlicedConv2d, sliced_convolutions

CPU = torch.device("cpu")


def layer(inputs: int = 4, kernel: int = 1, stride=2, **options) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, 8, kernel, stride=stride, **options).double()


@pytest.mark.parametrize(
    ("inputs", "options"),
    [(4, {}), (1, {"bias": False}), (15, {"stride": 3}), (7, {"stride": (1, 2)}), (3, {"padding": "valid"})],
)
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_the_function_and_all_gradients_stay(inputs, options, size):
    module = layer(inputs, **options)
    x = torch.randn(3, inputs, size, size + 1, dtype=torch.float64, requires_grad=True)
    expected = module(x)
    wanted = [x, *module.parameters()]
    gradients = torch.autograd.grad(expected.square().sum(), wanted)
    names = list(module.state_dict())
    with sliced_convolutions(nn.Sequential(module), CPU):
        assert type(module) is SlicedConv2d
        assert list(module.state_dict()) == names
        torch.testing.assert_close(module(x), expected)
        torch.testing.assert_close(torch.autograd.grad(module(x).square().sum(), wanted), gradients)
    assert type(module) is nn.Conv2d


def test_other_layers_stay_as_they_are():
    others = [layer(16), layer(kernel=3), layer(stride=1), layer(padding=1), layer(groups=2)]
    with sliced_convolutions(nn.Sequential(*others), CPU):
        assert {type(module) for module in others} == {nn.Conv2d}
    few = layer()
    with sliced_convolutions(few, torch.device("cuda")):
        assert type(few) is nn.Conv2d


def test_they_come_back_where_a_training_raises():
    few = layer()
    with pytest.raises(KeyError), sliced_convolutions(few, CPU):
        raise KeyError
    assert type(few) is nn.Conv2d


TRAINING = """
import torch
from torch import nn
from torch.nn import functional as F
from epsbench.harness.run.training.sliced import sliced_convolutions

torch.manual_seed(0)
torch.set_num_threads(1)
network = nn.Conv2d(4, 8, 1, stride=2).to(memory_format=torch.channels_last)
x = torch.randn(40, 4, 16, 16).to(memory_format=torch.channels_last)
with sliced_convolutions(network, x.device):
    for _ in range(20):
        (gradient,) = torch.autograd.grad(network(x).square().sum(), network.weight)
exact = network.double()
(expected,) = torch.autograd.grad(exact(x.double()).square().sum(), exact.weight)
torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-3)
"""


def test_memory_stays_whole():
    """In a process of its own, in which the allocator looks for what was overwritten."""
    child = subprocess.run(
        [sys.executable, "-c", TRAINING], env=of_child(1) | {"MALLOC_CHECK_": "3"}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
