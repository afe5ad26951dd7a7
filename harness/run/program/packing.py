"""Rewrites of a whole step for a CPU: convolutions whose weights lie as oneDNN wants them, and what they absorb.

Torch brings weights into oneDNN's layout at every call; in small batches of a ResNet's last layers that takes a fifth
of the time. Here it is done once. To the bit, the numbers stay what they were.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from harness.run.program.tracing import add_constant, arguments, aten, calls, constant, is_constant, only_user, tidy

mkldnn = torch.ops.mkldnn
_PAIR = [1, 1]
_TYPES = (torch.float32, torch.bfloat16)


def pack(module: fx.GraphModule, found: dict[fx.Node, Any]) -> None:
    """All of the rewrites here, on a traced step and what its nodes gave for some images."""
    for node in calls(module, aten.convolution.default):
        _pack_convolution(module, node, found)
    for node in calls(module, aten.convolution_backward.default):
        _pack_gradient(module, node, found)
    tidy(module)


def _pack_convolution(module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, Any]) -> None:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = arguments(node)
    if transposed or not is_constant(weight) or not _suits(found[x], constant(module, weight)):
        return
    settings = [list(padding), list(stride), list(dilation), groups]
    _replace(module, node, found, x, constant(module, weight), bias, settings)


def _pack_gradient(module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, Any]) -> None:
    """The gradient of a convolution's input is itself a convolution, where there is no stride."""
    gradient, _x, weight, _, stride, padding, dilation, transposed, _, groups, wanted = arguments(node)
    plain = list(stride) == _PAIR and list(dilation) == _PAIR and groups == 1 and not transposed
    if not plain or list(wanted) != [True, False, False] or not is_constant(weight):
        return
    kernel = constant(module, weight)
    first = only_user(node)
    outer = [size - 1 - p for size, p in zip(kernel.shape[2:], padding, strict=True)]
    if not _suits(found[gradient], kernel) or min(outer) < 0 or first is None or first.target is not operator.getitem:
        return
    turned = kernel.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
    _replace(module, first, found, gradient, turned, None, [outer, _PAIR, _PAIR, 1])


def _suits(x: Tensor, weight: Tensor) -> bool:
    if x.dim() != 4 or x.dtype not in _TYPES or weight.dtype != x.dtype:
        return False
    # One channel lies both ways.
    return x.is_contiguous(memory_format=torch.channels_last)


def _replace(
    module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, Any], x: fx.Node, weight: Tensor,
    bias: fx.Node | None, settings: list[Any],
) -> None:  # fmt: skip
    """Put a packed convolution in the place of ``node``, and of a sum and a ReLU if they alone use it."""
    shape = list(found[x].shape)
    packed = mkldnn._reorder_convolution_weight(weight, settings[0], settings[1], settings[2], settings[3], shape)
    last, other = node, _other_summand(node, found)
    if other is not None:
        last = only_user(node) or node
    after = only_user(last)
    relu = after is not None and after.target is aten.relu.default
    last = after if relu and after is not None else last
    weight_node = add_constant(module, packed, last)
    with module.graph.inserting_before(last):
        if other is None:
            given = (x, weight_node, bias, *settings, "relu" if relu else "none", [], "")
            fused = module.graph.call_function(mkldnn._convolution_pointwise.default, given)
        else:
            given = (x, other, weight_node, bias, *settings, "add", 1.0, "relu" if relu else None, [], None)
            fused = module.graph.call_function(mkldnn._convolution_pointwise.binary, given)
    found[fused] = found[last]
    last.replace_all_uses_with(fused)


def _other_summand(node: fx.Node, found: dict[fx.Node, Any]) -> fx.Node | None:
    """What is added to this node's value, if that is all that becomes of it, and both lie the same way."""
    total = only_user(node)
    if total is None or total.target is not aten.add.Tensor or total.kwargs or len(total.all_input_nodes) != 2:
        return None
    mine, other = found[node], next(n for n in total.all_input_nodes if n is not node)
    theirs = found[other]
    same = isinstance(theirs, Tensor) and (theirs.shape, theirs.dtype, theirs.stride()) == (
        mine.shape,
        mine.dtype,
        mine.stride(),
    )
    return other if same else None
