"""Rewrites of a whole step for a CPU: convolutions whose weights lie as oneDNN wants them, and what they absorb.

Torch brings weights into oneDNN's layout at every call; in small batches of a ResNet's last layers that takes a fifth
of the time. Here it is done once. In float32 the numbers stay what they were, to the bit.
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
    """Put a packed convolution in the place of ``node``, and of a sum and a ReLU if they alone use it.

    Where the packed one cannot be had, or lays its result out in another way, all stays as it is.
    """
    padding, stride, dilation, groups = settings
    last, other = node, _other_summand(node, found) if groups == 1 else None
    last = last if other is None else _the_user(last)
    relu = (after := only_user(last)) is not None and after.target is aten.relu.default
    last = _the_user(last) if relu else last
    packed = mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, list(found[x].shape))
    given: tuple[Any, ...]
    if other is None:
        operation, given = mkldnn._convolution_pointwise.default, (x, packed, bias, *settings)
        given += ("relu" if relu else "none", [], "")
    else:
        operation, given = mkldnn._convolution_pointwise.binary, (x, other, packed, bias, *settings)
        given += ("add", 1.0, "relu" if relu else None, [], None)
    try:
        result = operation(*(found.get(a, a) if isinstance(a, fx.Node) else a for a in given))
    except RuntimeError:
        return
    if result.stride() != found[last].stride():
        return
    constant_node = add_constant(module, packed, last)
    with module.graph.inserting_before(last):
        given = tuple(constant_node if a is packed else a for a in given)
        fused = module.graph.call_function(operation, given)
    found[fused] = result
    last.replace_all_uses_with(fused)


def _the_user(node: fx.Node) -> fx.Node:
    return next(iter(node.users))


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
