"""Ways to call one network: each must give the same logits (N, classes) for the same images (N, C, H, W)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import torch
from torch import Tensor, nn

from epsbench.harness.run.machine.copies import copy_of
from epsbench.harness.run.machine.memory import in_chunks

Call = Callable[[Tensor], Tensor]


def without_gradients(network: nn.Module) -> Call:
    def call(x: Tensor) -> Tensor:
        with torch.no_grad():
            return network(x).float()

    return call


def with_gradients(network: nn.Module, made: Call) -> Call:
    """With the gradient mode on, for images as ``made`` makes them: `leaf`, `inner` or `plain`."""

    def call(x: Tensor) -> Tensor:
        with torch.enable_grad():
            logits: Tensor = network(made(x))
            return logits.detach().float()

    return call


def leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_(True)


def inner(x: Tensor) -> Tensor:
    return leaf(x) * 1.0


def plain(x: Tensor) -> Tensor:
    return x.detach().clone()


def in_batches(network: nn.Module, size: int) -> Call:
    """In batches of exactly ``size``, all in the same memory; images are repeated where there are fewer.

    So a model that takes images at one address for the same images is another one.
    """

    def call(x: Tensor) -> Tensor:
        few = without_gradients(network)
        if size >= len(x):
            at = torch.arange(size, device=x.device) % len(x)
            return few(x[at])[: len(x)]
        batch, whole = torch.empty_like(x[:size]), len(x) // size * size
        logits = in_chunks(lambda rows: few(batch.copy_(x[rows])), whole, size)
        rest = len(x) - whole
        return torch.cat([logits, few(batch.copy_(x[-size:]))[-rest:]]) if rest else logits

    return call


def in_thread(network: nn.Module) -> Call:
    """In a thread of its own, where nothing on the stack says who asks."""
    ask = torch.no_grad()(network.__call__)

    def call(x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            logits: Tensor = pool.submit(ask, x).result()
        return logits.float()

    return call


def laid_out(network: nn.Module, made: Call) -> Call:
    """For images that lie in memory as ``made`` makes them; the plain call where the network refuses them."""

    def call(x: Tensor) -> Tensor:
        few = without_gradients(network)
        try:
            return few(made(x))
        # Such as .view of images that are not contiguous: then none are given to it.
        except Exception:  # noqa: BLE001
            return few(x)

    return call


def channels_last(x: Tensor) -> Tensor:
    # A copy: of one channel, `contiguous` returns the images as they are.
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def slice_of_more(x: Tensor) -> Tensor:
    return torch.cat([x[-1:], x])[1:]


def fresh(model: nn.Module) -> Call:
    """Each call with a copy of its own, so that none remembers an earlier call, not even one of ``model`` itself."""
    untouched = copy_of(model)

    def call(x: Tensor) -> Tensor:
        return evaluated(copy_of(untouched))(x)

    return call


def evaluated(model: nn.Module) -> Call:
    """Calls the user's model in evaluation mode and puts its mode back."""

    def call(x: Tensor) -> Tensor:
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            return without_gradients(model)(x)
        finally:
            for module, training in modes:
                module.training = training

    return call


def count_up(network: nn.Module, x: Tensor, times: int) -> None:
    """Call the network so many times with none of the images (N, C, H, W), in case it counts its calls.

    A network may refuse an empty batch. Then this ends.
    """
    few = without_gradients(network)
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(times):
            few(x[:0])
