"""How long a call takes, the device synchronised."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

Calls = Callable[[], object]


def seconds(call: Calls, device: torch.device, repeats: int = 3) -> float:
    """Median seconds of a call, the device synchronised."""
    taken = []
    for _ in range(repeats):
        _synchronise(device)
        started = time.perf_counter()
        call()
        _synchronise(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
