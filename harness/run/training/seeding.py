"""Where the randomness of a training comes from, and how a resumed training continues it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from epsbench.harness.isolation import isolated

Network = TypeVar("Network", bound=nn.Module)


def steps_per_epoch(n: int, batch: int) -> int:
    """The number of full batches among ``n`` examples; one smaller batch where there is no full one."""
    return max(1, n // batch)


def shuffled(n: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of an epoch's batches, on the generator's device."""
    order = torch.randperm(n, generator=generator, device=generator.device)
    for start in range(0, steps_per_epoch(n, batch) * batch, batch):
        yield order[start : start + batch]


@contextmanager
def reproducibly(seed: int, device: torch.device, precision: str) -> Iterator[torch.Generator]:
    """Seed every source of randomness inside, and restore the global ones afterwards.

    In float32, cuDNN uses deterministic algorithms only; in low precision it uses the fastest.
    """
    exact = precision == "float32"
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = exact, not exact
        try:
            yield torch.Generator(device).manual_seed(seed)
        finally:
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags


def random_state(generator: torch.Generator) -> dict[str, Tensor]:
    """The states of ``generator`` and of the global generators of the CPU and of its device, for a checkpoint.

    The global ones are needed too, because dropout draws from them.
    """
    states = {"training": generator.get_state(), "cpu": torch.get_rng_state()}
    if generator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(generator.device)
    return states


def resume_random_state(generator: torch.Generator, states: dict[str, Any]) -> None:
    """Restore what `random_state` returned, inside `reproducibly`."""
    generator.set_state(states["training"])
    torch.set_rng_state(states["cpu"])
    if generator.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], generator.device)


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """What ``build`` returns, its initial weights drawn from ``seed``. Global random states stay as they were."""
    with isolated(seed):
        return build()
