"""Rewrites of a whole step for a CPU: convolutions with weights in oneDNN's layout, fused with sums and ReLUs.

Torch brings weights into that layout at every call. In small batches of a ResNet's last layers this takes a fifth of
the time. Here it is done once. In float32 the results are identical to the bit.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from epsbench.harness.run.speed.program.tracing import (
    add_constant,
    arguments,
    aten,
    calls,
    constant,
    is_constant,
    only_user,
    tidy,
)
from epsbench.harness.run.speed.torch_private import private

_PAIR = [1, 1]
_TYPES = (torch.float32, torch.bfloat16)


def pack(module: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Apply all rewrites of this file to a traced step; ``values`` is what its nodes gave for some images."""
    for node in calls(module, aten.convolution.default):
        _pack_convolution(module, node, values)
    for node in calls(module, aten.convolution_backward.default):
        _pack_gradient(module, node, values)
    tidy(module)


def _pack_convolution(module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> None:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = arguments(node)
    if transposed or not is_constant(weight) or not _suits(values[x], constant(module, weight)):
        return
    settings = [list(padding), list(stride), list(dilation), groups]
    _replace(module, node, values, x, constant(module, weight), bias, settings)


def _pack_gradient(module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> None:
    """Without a stride, the gradient of a convolution's input is itself a convolution."""
    gradient, _x, weight, _, stride, padding, dilation, transposed, _, groups, wanted = arguments(node)
    plain = list(stride) == _PAIR and list(dilation) == _PAIR and groups == 1 and not transposed
    if not plain or list(wanted) != [True, False, False] or not is_constant(weight):
        return
    kernel = constant(module, weight)
    first = only_user(node)
    outer = [size - 1 - p for size, p in zip(kernel.shape[2:], padding, strict=True)]
    if not _suits(values[gradient], kernel) or min(outer) < 0 or first is None or first.target is not operator.getitem:
        return
    turned = kernel.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
    _replace(module, first, values, gradient, turned, None, [outer, _PAIR, _PAIR, 1])


def _suits(x: Tensor, weight: Tensor) -> bool:
    if x.dim() != 4 or x.dtype not in _TYPES or weight.dtype != x.dtype:
        return False
    # With one channel, both layouts are the same.
    return x.is_contiguous(memory_format=torch.channels_last)


def _replace(
    module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any], x: fx.Node, weight: Tensor,
    bias: fx.Node | None, settings: list[Any],
) -> None:  # fmt: skip
    """Put a packed convolution in the place of ``node``, and of a sum and a ReLU if nothing else uses it.

    Where torch refuses the packed one, or it lays out its result differently, nothing changes.
    """
    padding, stride, dilation, groups = settings
    last, other = node, _other_summand(node, values) if groups == 1 else None
    last = last if other is None else _the_user(last)
    relu = (after := only_user(last)) is not None and after.target is aten.relu.default
    last = _the_user(last) if relu else last
    packed = private("reorder_convolution_weight")(weight, padding, stride, dilation, groups, list(values[x].shape))
    given: tuple[Any, ...]
    if other is None:
        operation, given = private("convolution_pointwise"), (x, packed, bias, *settings)
        given += ("relu" if relu else "none", [], "")
    else:
        operation, given = private("convolution_pointwise_binary"), (x, other, packed, bias, *settings)
        given += ("add", 1.0, "relu" if relu else None, [], None)
    try:
        result = operation(*(values.get(a, a) if isinstance(a, fx.Node) else a for a in given))
    except RuntimeError:
        return
    if result.stride() != values[last].stride():
        return
    constant_node = add_constant(module, packed, last)
    with module.graph.inserting_before(last):
        given = tuple(constant_node if a is packed else a for a in given)
        fused = module.graph.call_function(operation, given)
    values[fused] = result
    last.replace_all_uses_with(fused)


def _the_user(node: fx.Node) -> fx.Node:
    return next(iter(node.users))


def _other_summand(node: fx.Node, values: dict[fx.Node, Any]) -> fx.Node | None:
    """What is added to this node's value, if the sum is its only use and both have the same layout."""
    total = only_user(node)
    if total is None or total.target is not aten.add.Tensor or total.kwargs or len(total.all_input_nodes) != 2:
        return None
    mine, other = values[node], next(n for n in total.all_input_nodes if n is not node)
    theirs = values[other]
    same = isinstance(theirs, Tensor) and (theirs.shape, theirs.dtype, theirs.stride()) == (
        mine.shape,
        mine.dtype,
        mine.stride(),
    )
    return other if same else None
