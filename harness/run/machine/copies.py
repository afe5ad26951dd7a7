"""Copies of networks."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

_OPAQUE = (nn.Module, type, FunctionType, BuiltinFunctionType, ModuleType, str, bytes, int, float, complex)


def copy_of(network: Network) -> Network:
    """A deep copy. What `forward` or a hook left in the network of its last pass is copied without its graph.

    `copy.deepcopy` refuses such tensors: features that a network keeps, or the weight that
    `torch.nn.utils.weight_norm` computes.
    """
    memo: dict[int, Any] = {}
    kept = []  # until the copy is made: the keys of a memo are addresses
    for module in network.modules():
        for tensor in _of_graphs(vars(module), set()):
            memo[id(tensor)] = tensor.detach().clone()
            kept.append(tensor)
    return copy.deepcopy(network, memo)


def _of_graphs(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """The tensors below a value that were computed with gradients."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
        return
    if isinstance(value, _OPAQUE) or value is None or id(value) in seen:
        return
    seen.add(id(value))
    inside: Any = ()
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list | tuple | set | frozenset | deque):
        inside = value
    for each in (*inside, *getattr(value, "__dict__", {}).values()):
        yield from _of_graphs(each, seen)
