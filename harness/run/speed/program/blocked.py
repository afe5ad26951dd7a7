"""Convolutions of a network's forward pass in oneDNN's own layouts, for a CPU.

Between two such convolutions the features stay as the library wants them: in blocks of 16 channels. Its kernels for
these layouts convolve an image of one channel three times as fast as those for channels-last, which multiply channel by
channel. smallcnn's logits on MNIST took 0.89 times as long in float32 and 0.81 times in bf16 (batch 256, one shared AMD
EPYC core, torch 2.14, least of 15 rounds in turns). A backward pass needs the features as tensors, and gains nothing.
"""

from __future__ import annotations

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

_NARROW = 16  # channels in a block of the library's layouts
_TYPES = (torch.float32, torch.bfloat16)


def use_own_layouts(module: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Replace the convolutions of a traced network, each with its ReLU; ``values`` is what its nodes gave.

    What the last one gives is contiguous. Raises `ValueError` where they are not one chain from an image of few
    channels: elsewhere nothing was gained (ResNet-18: 1.26 times as long).
    """
    convolutions = list(calls(module, aten.convolution.default))
    if not convolutions:
        raise ValueError("there is no convolution")
    for node, before in zip(convolutions, [None, *convolutions], strict=False):
        x, weight, bias, *_ = arguments(node)
        image = values[x]
        if not (is_constant(weight) and (bias is None or is_constant(bias)) and _suits(node, image)):
            raise ValueError(f"{node} cannot be computed in a layout of oneDNN's own")
        if image.shape[1] >= _NARROW if before is None else x is not _with_relu(before):
            raise ValueError(f"what {node} reads gains nothing by a layout of oneDNN's own")
    for node in convolutions:
        _replace(module, node)
    tidy(module)


def drop_copies(module: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
    """Drop copies of what lies as the copy does: nothing in a traced network writes."""
    for node in calls(module, aten.clone.default):
        before = arguments(node)[0]
        if values[before].stride() == values[node].stride():
            node.replace_all_uses_with(before)
    tidy(module)


def _suits(node: fx.Node, image: Tensor) -> bool:
    transposed = arguments(node)[6]
    return not transposed and image.dim() == 4 and image.dtype in _TYPES


def _with_relu(node: fx.Node) -> fx.Node:
    """The ReLU of a convolution, or the convolution where none follows it alone."""
    user = only_user(node)
    return user if user is not None and user.target is aten.relu.default else node


def _replace(module: fx.GraphModule, node: fx.Node) -> None:
    last = _with_relu(node)
    x, weight, bias, stride, padding, dilation, _, _, groups = arguments(node)
    kernel, numbers = (None if each is None else constant(module, each).contiguous() for each in (weight, bias))
    assert kernel is not None
    own = add_constant(module, kernel.to_mkldnn(), node)
    added = None if numbers is None else add_constant(module, numbers.to_mkldnn(), node)
    with module.graph.inserting_before(node):
        # From the convolution before, where nothing else came between.
        known = x.op == "call_method" and x.target == "to_dense"
        image = x.args[0] if known else module.graph.call_method("to_mkldnn", (x,))
        given = (image, own, added, list(padding), list(stride), list(dilation), groups)
        result = module.graph.call_function(aten.mkldnn_convolution.default, given)
        if last is not node:
            result = module.graph.call_function(aten.relu_.default, (result,))
        dense = module.graph.call_method("to_dense", (result,))
    last.replace_all_uses_with(dense)
