"""Rewrites of a network's forward pass whose gradient is the faster for it; autograd derives the backward pass.

Each takes the graph of `epsbench.harness.run.speed.program.tracing`, and what its nodes gave for some images, and changes the graph
in place. None changes what is computed, but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from epsbench.harness.run.speed.convolutions import gains, strided_convolution
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
)

_NARROW = 16  # channels: with fewer, an operation with a number a channel runs the slower the fewer there are


def rewrite_forward(module: fx.GraphModule, found: dict[fx.Node, Any]) -> None:
    """All of the rewrites here."""
    drop_restrides(module, found)
    fold_scales(module)
    widen(module, found)
    flatten_as_it_lies(module, found)
    use_subpixel_gradients(module)
    tidy(module)


def drop_restrides(module: fx.GraphModule, found: dict[fx.Node, Any]) -> None:
    """Pooling down to one position names its result's strides anew; that has no gradient a graph could hold."""
    for node in calls(module, aten.as_strided.default):
        before = arguments(node)[0]
        if found[before].shape == found[node].shape and torch.equal(found[before], found[node]):
            node.replace_all_uses_with(before)


def fold_scales(module: fx.GraphModule) -> None:
    """A division or multiplication by a number a channel before a convolution moves into its weights.

    Most models end their normalisation so. The zeros that a convolution pads with stay zeros.
    """
    for node in calls(module, aten.convolution.default):
        scaled, weight, _, _, _, _, transposed, _, groups = arguments(node)
        between = [scaled]
        if scaled.target is aten._to_copy.default:  # from float32 to a lower precision
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
        # As the kernel lies, to the very strides: of one channel they alone say which way its convolution lays images.
        folded = torch.empty_like(kernel).copy_(split.flatten(0, 1))
        node.update_arg(1, add_constant(module, folded, node))
        scaled.replace_all_uses_with(image)


def widen(module: fx.GraphModule, found: dict[fx.Node, Any]) -> None:
    """A number for each of few channels becomes a number for each pixel, which an operation can run straight along."""
    for node in calls(module, aten.sub.Tensor, aten.add.Tensor, aten.div.Tensor, aten.mul.Tensor):
        image, number = arguments(node)
        if not isinstance(image, fx.Node) or is_constant(image) or not _a_number_a_channel(module, number):
            continue
        shape = found[image].shape
        if found[node].shape == shape and shape[1] < _NARROW:
            last = found[image].is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            wide = constant(module, number).expand(1, *shape[1:]).contiguous(memory_format=layout)
            node.update_arg(1, add_constant(module, wide, node))


def flatten_as_it_lies(module: fx.GraphModule, found: dict[fx.Node, Any]) -> None:
    """Features that are flattened for linear layers stay in their channels-last order; the weights change theirs.

    Otherwise the features are copied, and on the way back a gradient that lies one way meets features that lie the
    other, which is ten times as slow.
    """
    for flat in calls(module, aten.view.default, aten._unsafe_view.default):
        features = arguments(flat)[0]
        if features.target is aten.clone.default:
            features = arguments(features)[0]
        before, after, linear = found[features], found[flat], list(flat.users)
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
