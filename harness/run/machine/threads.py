"""How many threads of a CPU are the fastest for a network: tried once, and remembered on this machine.

The operations of a small network are too short to be shared: on two cores, a step of a small CNN on 8×8 images took
three times as long with two threads as with one (torch 2.14, the cores shared with other work). A choice that is
remembered keeps results reproducible: the number of threads changes how sums round.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from epsbench.harness.files import cache_folder, write_atomically
from epsbench.harness.hardware import cpu_name

WORTH = 0.9  # more threads must take at most this share of the time of fewer
_CALLS, _SHORTEST = 5, 2e-3  # calls at each number, and seconds that a timing lasts at least


def use_fastest(call: Callable[[], object], device: torch.device, most: int, key: str) -> int:
    """Compute with as many threads as ``call`` is fastest with, at most ``most``; returns the number.

    ``key`` says what is computed: with the same key on the same machine the number is the one that was tried first.
    Nothing is tried on a GPU, or where there is one thread only.
    """
    if device.type != "cpu" or most <= 1:
        return torch.get_num_threads()
    path = _path(f"{cpu_name()} {most} {version('torch')} {key}")
    number = _remembered(path, most)
    if number is None:
        number = fastest(call, most)
        if path is not None:
            _remember(path, number)
    torch.set_num_threads(number)
    return number


def fastest(call: Callable[[], object], most: int) -> int:
    """The number of threads, 1, 2, 4, … or ``most``, after which more gain less than a tenth."""
    before = torch.get_num_threads()
    try:
        best, least, number = 1, _seconds(call, 1), 2
        while number < 2 * most:
            number = min(number, most)
            if (seconds := _seconds(call, number)) > WORTH * least:
                break
            best, least, number = number, seconds, 2 * number
        return best
    finally:
        torch.set_num_threads(before)


@contextmanager
def threads_kept() -> Iterator[None]:
    """Afterwards torch computes with as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shape_key(network: object, *numbers: object) -> str:
    """What a network computes, as far as its time depends on it: its layers and the shapes of its weights."""
    text = repr(numbers)
    if isinstance(network, nn.Module):
        layers = [type(each).__name__ for each in network.modules()]
        text += repr((layers, [tuple(each.shape) for each in network.parameters()]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _seconds(call: Callable[[], object], threads: int) -> float:
    """The least seconds of a call: what else the machine does makes calls longer, never shorter."""
    torch.set_num_threads(threads)
    call()
    taken = []
    for _ in range(_CALLS):
        began, count = time.perf_counter(), 0
        while not count or time.perf_counter() - began < _SHORTEST:
            call()
            count += 1
        taken.append((time.perf_counter() - began) / count)
    return min(taken)


def _path(key: str) -> Path | None:
    folder = cache_folder("threads")
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json" if folder else None


def _remembered(path: Path | None, most: int) -> int | None:
    try:
        number = json.loads(path.read_text())["threads"] if path else None
    except (OSError, ValueError, LookupError, TypeError):  # not there, or damaged: tried again
        return None
    return number if isinstance(number, int) and 1 <= number <= most else None


def _remember(path: Path, number: int) -> None:
    try:
        write_atomically(path, json.dumps({"threads": number}).encode())
    except OSError:  # a full disk: it is tried again next time
        return
