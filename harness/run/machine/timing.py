"""How long a call takes, the device synchronised."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median seconds of a call, the device synchronised."""
    taken = []
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        call()
        synchronise(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def synchronise(device: torch.device) -> None:
    """Wait until a CUDA device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
