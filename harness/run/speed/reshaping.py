"""Networks that flatten with ``view`` in memory layouts that ``view`` refuses.

``x.view(len(x), -1)`` needs features whose channels lie one after the other. Channels-last features do not, and
``reshape`` copies them. A network in the form of this file computes `reshape` wherever its ``view`` refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

RESHAPED = "views copied"
"""What the form of a victim or of a training is called where `view` may copy."""

_REFUSED = (RuntimeError, ValueError)  # the second while a graph is traced


def reshape_views(network: nn.Module) -> bool:
    """Bring ``network`` into this form, in place; return whether that is possible. `restore_views` undoes it.

    A view that refuses becomes a copy. A network that writes into such a view would compute something else, so
    callers compare the two.
    """
    if isinstance(network, torch.jit.ScriptModule) or reshapes(network):
        return reshapes(network)
    network.__class__ = _reshaping(type(network))  # type: ignore[arg-type]  # classes are hashable
    return True


def restore_views(network: nn.Module) -> None:
    """Undo `reshape_views`."""
    if reshapes(network):
        network.__class__ = type(network).__bases__[0]


@contextmanager
def views_restored(network: nn.Module) -> Iterator[None]:
    """`restore_views` at the end, with weights whose features `view` takes: what is left is as it was given."""
    try:
        yield
    finally:
        if reshapes(network):
            restore_views(network)
            network.to(memory_format=torch.contiguous_format)


def reshapes(network: nn.Module) -> bool:
    """Whether it is in this form."""
    return getattr(type(network), "views_may_copy", False)


@cache
def _reshaping(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of networks like ``kind`` in this form: its parameters, hooks and names are those of ``kind``."""

    def forward(self: nn.Module, *args: Any, **options: Any) -> Any:
        with _CopiedViews():
            return kind.forward(self, *args, **options)

    own = {"forward": forward, "views_may_copy": True, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), own)


class _CopiedViews(TorchFunctionMode):
    """Computes `Tensor.reshape` where `Tensor.view` refuses."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not Tensor.view and function is not Tensor.view_as:
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except _REFUSED:
            x, *shape = args
            if function is Tensor.view_as:
                return x.reshape_as(*shape, **kwargs)
            if any(isinstance(each, torch.dtype) for each in (*shape, *kwargs.values())):
                raise
            return x.reshape(*shape, **{"shape" if name == "size" else name: each for name, each in kwargs.items()})
