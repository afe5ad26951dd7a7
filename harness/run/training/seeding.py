"""Where the randomness of a training comes from, and how a resumed training continues it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from epsbench.harness.isolation import isolated, seed_global
from epsbench.harness.run.training.generator_states import of_numpy, of_python, to_numpy, to_python

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

    The global ones are those of torch, NumPy and Python: a network, a defense or an augmentation of the user's own may
    draw from any of them. In float32, cuDNN uses deterministic algorithms only; in low precision it uses the fastest.
    """
    exact = precision == "float32"
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    numpy, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed_global(seed)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = exact, not exact
        try:
            yield torch.Generator(device).manual_seed(seed)
        finally:
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = flags
            np.random.set_state(numpy)
            random.setstate(python)


def random_state(generator: torch.Generator) -> dict[str, Any]:
    """The states of ``generator`` and of the global generators of torch, NumPy and Python, for a checkpoint.

    The global ones are needed too: dropout draws from torch's, and code of the user's own from any.
    """
    states: dict[str, Any] = {
        "training": generator.get_state(),
        "cpu": torch.get_rng_state(),
        "numpy": of_numpy(np.random.get_state(legacy=False)),
        "python": of_python(random.getstate()),
    }
    if generator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(generator.device)
    return states


def resume_random_state(generator: torch.Generator, states: dict[str, Any]) -> None:
    """Restore what `random_state` returned, inside `reproducibly`."""
    generator.set_state(states["training"])
    torch.set_rng_state(states["cpu"])
    if generator.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], generator.device)
    if "numpy" in states:  # an older checkpoint has none
        np.random.set_state(to_numpy(states["numpy"]))
        random.setstate(to_python(states["python"]))


def seeded(build: Callable[[], Network], seed: int) -> Network:
    """What ``build`` returns, its initial weights drawn from ``seed``. Global random states stay as they were."""
    with isolated(seed):
        return build()
