"""Strided convolutions that go backward as sub-pixel convolutions, against autograd's own gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.machine.precision import autocast
from epsbench.harness.run.speed.convolutions import (
    SubpixelConv2d,
    column_gradient,
    strided_convolution,
    subpixel,
    subpixel_gradient,
    subpixel_gradients,
)
from epsbench.models.catalogue import ResNet18, SmallCNN

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
    for way in (subpixel_gradient, column_gradient):
        actual = way(gradient, weight, size, stride, padding)
        assert actual.shape == expected.shape
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("inputs", [1, 3])
def test_in_float32_few_channels_go_backward_as_they_do_in_training(inputs: int):
    """One channel by columns, more by sub-pixels: the same gradients of the image, the weights and the bias."""
    torch.manual_seed(0)
    layer = SubpixelConv2d(inputs, 5, 4, stride=2, padding=1)
    x = torch.randn(4, inputs, 9, 11)

    def other(image: Tensor) -> Tensor:
        return strided_convolution(image, layer.weight, layer.bias, layer.stride, layer.padding)

    other.parameters = layer.parameters
    for actual, expected in zip(all_gradients(other, x), all_gradients(layer, x), strict=True):
        torch.testing.assert_close(actual, expected)


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
    for actual, wanted in zip(all_gradients(layer, x), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


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
    expected, actual = (torch.autograd.grad(each(x).tanh().sum(), each.bias)[0] for each in (layer, quick))
    torch.testing.assert_close(actual, expected)


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
    for actual, wanted in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=2e-2, atol=2e-2)


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
