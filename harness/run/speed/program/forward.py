"""Rewrites of a network's forward pass that make its gradient faster; autograd derives the backward pass.

Each takes a graph of `epsbench.harness.run.speed.program.tracing`, with what its nodes gave for some images, and
changes it in place. None changes what is computed, apart from rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from epsbench.harness.run.speed.convolutions import gains, strided_convolution
from epsbench.harness.run.speed.program.blocked import drop_copies, use_own_layouts
from epsbench.harness.run.speed.program.small_maps import multiply_small_maps
from epsbench.harness.run.speed.program.tracing import (
    add_constant,
    arguments,
    aten,
    calls,
    constant,
    exact_constant,
    is_constant,
    only_user,
    tidy,
    values,
)
from epsbench.harness.run.speed.torch_private import private

_NARROW = 16  # channels; with fewer, an operation that has one number a channel runs slowly


def rewrite_forward(module: fx.GraphModule, x: Tensor, *, backward: bool = True, own_layouts: bool = False) -> None:
    """Apply all rewrites of a network, traced for images like ``x`` (N, C, H, W). Without a ``backward`` pass, none
    for it; with ``own_layouts``, convolutions as `epsbench.harness.run.speed.program.blocked` has them.
    """
    known = values(module, x)
    drop_restrides(module, known)
    fold_scales(module)
    widen(module, known)
    if own_layouts:
        use_own_layouts(module, known)
        drop_copies(module, known := values(module, x))
    flatten_as_it_lies(module, known)
    multiply_small_maps(module, known)
    if backward:
        use_subpixel_gradients(module)  # which hides a convolution from what would fuse it with its ReLU
    tidy(module)


def drop_restrides(module: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Drop the re-striding that pooling to one position ends with: a graph has no gradient of it."""
    for node in calls(module, aten.as_strided.default):
        before = arguments(node)[0]
        if values[before].shape == values[node].shape and torch.equal(values[before], values[node]):
            node.replace_all_uses_with(before)


def fold_scales(module: fx.GraphModule) -> None:
    """Move a division or multiplication by one number a channel into the weights of the convolution that follows.

    The normalisation of most models ends with one. The zeros that a convolution pads with stay zeros.
    """
    for node in calls(module, aten.convolution.default):
        scaled, weight, _, _, _, _, transposed, _, groups = arguments(node)
        between = [scaled]
        if scaled.target is private("to_copy"):  # from float32 to a lower precision
            scaled = arguments(scaled)[0]
            between.append(scaled)
        if scaled.target not in (aten.div.Tensor, aten.mul.Tensor) or not all(map(only_user, between)):
            continue
        image, scale = arguments(scaled)
        if transposed or not is_constant(weight) or not _a_number_a_channel(module, scale):
            continue
        kernel = constant(module, weight)
        # Of a grouped convolution's weights the second axis counts within the group.
        factor = constant(module, scale).view(groups, 1, -1, 1, 1)
        split = exact_constant(module, weight).float().unflatten(0, (groups, -1))
        split = split / factor if scaled.target is aten.div.Tensor else split * factor
        # With the kernel's own strides: for one channel, they alone decide how its convolution lays out images.
        folded = torch.empty_like(kernel).copy_(split.flatten(0, 1))
        node.update_arg(1, add_constant(module, folded, node))
        scaled.replace_all_uses_with(image)


def widen(module: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Turn one number for each of few channels into one for each pixel: an operation can then run along memory."""
    for node in calls(module, aten.sub.Tensor, aten.add.Tensor, aten.div.Tensor, aten.mul.Tensor):
        image, number = arguments(node)
        if not isinstance(image, fx.Node) or is_constant(image) or not _a_number_a_channel(module, number):
            continue
        shape = values[image].shape
        if values[node].shape == shape and shape[1] < _NARROW:
            last = values[image].is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            wide = constant(module, number).expand(1, *shape[1:]).contiguous(memory_format=layout)
            node.update_arg(1, add_constant(module, wide, node))


def flatten_as_it_lies(module: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Flatten channels-last features for linear layers in the order they lie in, and reorder the weights instead.

    Otherwise the features are copied, and in the backward pass a gradient in one layout meets features in the other,
    which is ten times as slow.
    """
    for flat in calls(module, aten.view.default, private("unsafe_view")):
        features = arguments(flat)[0]
        if features.target is aten.clone.default:
            features = arguments(features)[0]
        before, after, linear = values[features], values[flat], list(flat.users)
        if not (isinstance(before, Tensor) and before.dim() == 4 and after.dim() == 2) or len(before) != len(after):
            continue
        if before.is_contiguous() or not before.is_contiguous(memory_format=torch.channels_last):
            continue
        if not all(_is_linear(node, flat) for node in linear):
            continue
        _, channels, rows, columns = before.shape
        for node in linear:
            weight = constant(module, arguments(node)[2])
            turned = weight.unflatten(0, (channels, rows, columns)).permute(1, 2, 0, 3).flatten(0, 2)
            # The transpose of a contiguous matrix, as a linear layer's weights are.
            node.update_arg(2, add_constant(module, turned.t().contiguous().t(), node))
        with module.graph.inserting_before(flat):
            pixels_first = module.graph.call_function(aten.permute.default, (features, [0, 2, 3, 1]))
            view = module.graph.call_function(aten.view.default, (pixels_first, [-1, channels * rows * columns]))
        flat.replace_all_uses_with(view)


def use_subpixel_gradients(module: fx.GraphModule) -> None:
    """Strided convolutions of few channels go backward as `epsbench.harness.run.speed.convolutions` has it."""
    for node in calls(module, aten.convolution.default):
        x, weight, bias, stride, padding, dilation, transposed, _, groups = arguments(node)
        if transposed or groups != 1 or list(dilation) != [1, 1] or not is_constant(weight):
            continue
        _, inputs, *kernel = constant(module, weight).shape
        if gains(inputs, tuple(kernel), tuple(stride)):
            node.target, node.args = strided_convolution, (x, weight, bias, tuple(stride), tuple(padding))


def _is_linear(node: fx.Node, features: fx.Node) -> bool:
    return node.target is aten.addmm.default and arguments(node)[1] is features and is_constant(arguments(node)[2])


def _a_number_a_channel(module: fx.GraphModule, node: object) -> bool:
    if not is_constant(node):
        return False
    value = constant(module, node)  # type: ignore[arg-type]
    return value.dim() == 4 and value.numel() == value.shape[1]
