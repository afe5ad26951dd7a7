"""Convolutions of small maps as matrix products: the same numbers, and no convolution left."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.attack.gradient import input_gradient
from epsbench.harness.run.speed.program.program import ForwardProgram, Program
from epsbench.harness.run.speed.program.small_maps import as_matrix
from epsbench.models.catalogue import ResNet18

LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


def convolutions(graph: torch.fx.Graph) -> int:
    return sum("convolution" in str(node.target) for node in graph.nodes)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)), st.integers(1, 5), st.integers(1, 3),
    st.integers(1, 2), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_the_matrix_is_the_convolution(shape, outputs, kernel, stride, padding, channels_last):
    padding = max(padding, kernel - min(shape[1:]))
    weight, x = torch.randn(outputs, shape[0], kernel, kernel).double(), torch.randn(3, *shape).double()
    expected = F.conv2d(x, weight, stride=stride, padding=padding)
    matrix = as_matrix(weight, shape, channels_last, stride=stride, padding=padding, dilation=1)
    lying = x.permute(0, 2, 3, 1) if channels_last else x
    wanted = expected.permute(0, 2, 3, 1) if channels_last else expected
    assert torch.allclose(lying.flatten(1) @ matrix, wanted.flatten(1), atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_program_multiplies_small_maps(layout, bias):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(6, 8, 3, padding=1, bias=bias), nn.ReLU(),
        nn.Conv2d(8, 8, 5, stride=2, padding=2, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10),
    ).eval().requires_grad_(False).to(memory_format=LAYOUTS[layout])  # fmt: skip
    x = torch.rand(5, 3, 8, 8).to(memory_format=LAYOUTS[layout])
    assert convolutions(ForwardProgram(network, x).graph) == 1
    y = torch.arange(5)
    program = Program(network, x, y)
    for n in (2, 5):
        gradient, logits = program(x[:n], y[:n])
        assert torch.allclose(logits, network(x[:n]), atol=1e-5)
        assert torch.allclose(gradient, input_gradient(network, x[:n], y[:n])[0], atol=1e-6)


def test_larger_maps_stay_convolutions():
    layer = nn.Conv2d(2, 2, 3, padding=1).requires_grad_(False)
    assert convolutions(ForwardProgram(layer, torch.rand(2, 2, 3, 3)).graph) == 1
    assert convolutions(ForwardProgram(layer, torch.rand(2, 2, 2, 2)).graph) == 0


def test_the_last_stage_of_the_assignments_network_has_one_convolution_on_larger_maps():
    torch.manual_seed(0)
    network = ResNet18(width=4, stem="pool").build(DATASETS["cifar10"]).eval().requires_grad_(False)
    network = network.to(memory_format=torch.channels_last)
    x = torch.rand(3, 3, 32, 32).to(memory_format=torch.channels_last)
    program = ForwardProgram(network, x)
    assert convolutions(program.graph) == 20 - 3
    assert torch.allclose(program(x), network(x), atol=1e-4)
