"""Convolutions of maps with fewer pixels than the kernel has taps, as matrix products.

There most taps meet nothing but padding, which the library's kernels multiply all the same: of a 3×3 kernel on a 2×2
map, five of nine. The last stage of the assignment's ResNet-18 has such maps. Its layers took half the time as matrix
products, forward and backward (batch 128, float32 and bf16, one AMD EPYC core, torch 2.14).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from epsbench.harness.run.speed.program.tracing import (
    add_constant,
    arguments,
    aten,
    calls,
    constant,
    is_constant,
)

MOST = 0.5  # pixels of the map for each tap of the kernel
_LARGEST = 2**24  # numbers in a matrix


def multiply_small_maps(module: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Replace those convolutions of a traced network; ``values`` is what its nodes gave for some images."""
    for node in calls(module, aten.convolution.default):
        x, weight, bias, stride, padding, dilation, transposed, _, groups = arguments(node)
        if transposed or groups != 1 or not is_constant(weight) or not (bias is None or is_constant(bias)):
            continue
        image, kernel = values.get(x), constant(module, weight)
        if not isinstance(image, Tensor) or image.dim() != 4 or not _is_small(image, kernel, values[node]):
            continue
        channels_last = image.is_contiguous(memory_format=torch.channels_last)
        settings = {"stride": list(stride), "padding": list(padding), "dilation": list(dilation)}
        matrix = as_matrix(kernel, tuple(image.shape[1:]), channels_last, **settings)
        numbers = None if bias is None else _a_number_a_pixel(constant(module, bias), values[node], channels_last)
        _replace(module, node, x, matrix, numbers, values[node].shape[1:], channels_last)


def as_matrix(kernel: Tensor, shape: tuple[int, ...], channels_last: bool, **settings: Any) -> Tensor:
    """The matrix (C·H·W, K·h·w) of a convolution of images of ``shape`` (C, H, W): its results for the unit images.

    Pixels are numbered in the order they lie in.
    """
    channels, rows, columns = shape
    units = torch.eye(channels * rows * columns, dtype=kernel.dtype, device=kernel.device)
    if channels_last:
        images = units.view(-1, rows, columns, channels).permute(0, 3, 1, 2)
    else:
        images = units.view(-1, channels, rows, columns)
    results = F.conv2d(images, kernel, **settings)
    matrix = (results.permute(0, 2, 3, 1) if channels_last else results).flatten(1)
    return matrix.t().contiguous().t()  # as a linear layer's weights are


def _is_small(image: Tensor, kernel: Tensor, result: Tensor) -> bool:
    dense = image.is_contiguous(memory_format=torch.channels_last) or image.is_contiguous()
    pixels, taps = image[0, 0].numel(), kernel[0, 0].numel()
    fits = image[0].numel() * result[0].numel() <= _LARGEST
    return dense and fits and kernel.dtype == image.dtype and pixels <= MOST * taps


def _a_number_a_pixel(bias: Tensor, result: Tensor, channels_last: bool) -> Tensor:
    pixels = result[0, 0].numel()
    return bias.repeat(pixels) if channels_last else bias.repeat_interleave(pixels)


def _replace(
    module: fx.GraphModule, node: fx.Node, x: fx.Node, matrix: Tensor, bias: Tensor | None, shape: torch.Size,
    channels_last: bool,
) -> None:  # fmt: skip
    channels, rows, columns = shape
    product = add_constant(module, matrix, node)
    added = None if bias is None else add_constant(module, bias, node)

    def call(operation: Any, *given: Any) -> fx.Node:
        return module.graph.call_function(operation, given)

    with module.graph.inserting_before(node):
        lying = call(aten.permute.default, x, [0, 2, 3, 1]) if channels_last else x
        flat = call(aten.view.default, lying, [-1, len(matrix)])
        if added is None:
            result = call(aten.mm.default, flat, product)
        else:
            result = call(aten.addmm.default, added, flat, product)
        if channels_last:
            result = call(aten.view.default, result, [-1, rows, columns, channels])
            result = call(aten.permute.default, result, [0, 3, 1, 2])
        else:
            result = call(aten.view.default, result, [-1, channels, rows, columns])
    node.replace_all_uses_with(result)
