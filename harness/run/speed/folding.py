"""Batch norm folded into the convolution before it: in evaluation mode the two are one convolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval

from epsbench.harness.run.machine.copies import copy_of

_PAIRS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A traced copy of ``model``, in evaluation mode, without the batch norms that directly follow a convolution.

    A batch norm stays where something else uses the convolution's output too, where either layer is called more than
    once, and where it keeps no running statistics. Raises one of `epsbench.harness.run.speed.program.UNTRACEABLE`
    where torch.fx cannot trace the model.
    """
    network, tracer = copy_of(model), _Tracer()
    traced = fx.GraphModule(network, tracer.trace(network))
    layers = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution, norm = layers[str(before.target)], layers[str(node.target)]
        if calls[before.target] > 1 or calls[node.target] > 1 or not _folds(convolution, norm):
            continue
        traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced


class _Tracer(fx.Tracer):
    """Goes through layers that are part of no module: `forward` made them, or they are kept in a list."""

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if any(m is each for each in self.root.modules()):
            return super().call_module(m, forward, args, kwargs)
        return forward(*args, **kwargs)


def _folds(convolution: nn.Module, norm: nn.Module) -> bool:
    # The exact types: a subclass may compute something else.
    wanted = _PAIRS.get(type(convolution))
    if wanted is None or type(norm) is not wanted or norm.running_var is None:
        return False
    # A weight that is no parameter of its layer is computed at each call, as after pruning or weight_norm.
    return all(isinstance(layer.weight, nn.Parameter) for layer in (convolution, norm) if layer.weight is not None)
