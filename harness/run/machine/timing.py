"""How long a call takes, the device synchronised."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 3, *, by_clock: bool = False) -> float:
    """Median seconds of a call, the device synchronised.

    Where one thread of a CPU computes, they are those of the processor: whatever else runs on the machine does not
    decide then which form of a model is taken. ``by_clock`` they are not: for comparison with seconds of the clock.
    """
    deciding, clock = both_seconds(call, device, repeats)
    return clock if by_clock else deciding


def both_seconds(call: Callable[[], object], device: torch.device, repeats: int = 3) -> tuple[float, float]:
    """`seconds` of the same calls, and those ``by_clock``."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    taken = []
    for _ in range(repeats):
        synchronise(device)
        started, began = time.thread_time(), time.perf_counter()
        call()
        synchronise(device)
        taken.append((time.thread_time() - started, time.perf_counter() - began))
    processor, clock = (statistics.median(times) for times in zip(*taken, strict=True))
    return processor if alone else clock, clock


def synchronise(device: torch.device) -> None:
    """Wait until a CUDA device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
