"""How a CPU's cores compute a network the fastest, by threads or processes: tried once, remembered on this machine.

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
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from epsbench.harness.files import cache_folder, write_atomically
from epsbench.harness.hardware import cpu_name

WORTH = 0.9  # more threads must take at most this share of the time of fewer
# Two processes of one thread each attacked 1.82 times as fast as one (smallcnn, two AMD EPYC cores, torch 2.14), so
# each reaches nine tenths of its rate alone. They have to be this much faster than the best number of threads.
SHARED, PAYS = 0.9, 1.15
MOST_PROCESSES = 8  # each holds torch and the data once more
_CALLS, _SHORTEST = 5, 2e-3  # calls at each number, and seconds that a timing lasts at least


@dataclass(frozen=True)
class Choice:
    """How a CPU's cores compute something the fastest."""

    threads: int
    """Of one process."""

    seconds: float
    """Of a call with so many."""

    processes: int = 1
    """So many processes that share work out are faster than one; 1: they are not."""


def use_fastest(call: Callable[[], object], device: torch.device, most: int, key: str) -> int:
    """Compute with as many threads as ``call`` is fastest with, at most ``most``; returns the number.

    ``key`` says what is computed: with the same key on the same machine the number is the one that was tried first.
    Nothing is tried on a GPU, or where there is one thread only.
    """
    if device.type != "cpu" or most <= 1:
        return torch.get_num_threads()
    number = chosen(call, most, key).threads
    torch.set_num_threads(number)
    return number


def chosen(call: Callable[[], object], most: int, key: str) -> Choice:
    """The choice for ``call`` on a CPU with ``most`` threads, as it was tried first for this ``key``."""
    path = _path(f"{cpu_name()} {most} {version('torch')} {key}")
    choice = _remembered(path, most)
    if choice is None:
        choice = fastest(call, most)
        if path is not None:
            _remember(path, choice)
    return choice


def fastest(call: Callable[[], object], most: int) -> Choice:
    """The number of threads, 1, 2, 4, … or ``most``, after which more gain less than a tenth, and of processes."""
    before = torch.get_num_threads()
    try:
        best, number, taken = 1, 2, {1: _seconds(call, 1)}
        while number < 2 * most:
            number = min(number, most)
            taken[number] = _seconds(call, number)
            if taken[number] > WORTH * taken[best]:
                break
            best, number = number, 2 * number
        return Choice(best, taken[best], _processes(taken, best, most))
    finally:
        torch.set_num_threads(before)


def _processes(taken: dict[int, float], best: int, most: int) -> int:
    """How many processes do the most calls a second, by the seconds of a call by its number of threads."""
    rates = {most // number: SHARED * (most // number) / seconds for number, seconds in taken.items()}
    rates = {min(processes, MOST_PROCESSES): rate for processes, rate in rates.items() if processes > 1}
    if not rates:
        return 1
    processes = min(number for number, rate in rates.items() if rate >= 0.95 * max(rates.values()))
    return processes if rates[processes] >= PAYS / taken[best] else 1


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


def _remembered(path: Path | None, most: int) -> Choice | None:
    try:
        choice = Choice(**json.loads(path.read_text())) if path else None
    except (OSError, ValueError, LookupError, TypeError):  # not there, or damaged: tried again
        return None
    numbers = (choice.threads, choice.processes) if choice else ()
    return choice if all(isinstance(each, int) and 1 <= each <= most for each in numbers) else None


def _remember(path: Path, choice: Choice) -> None:
    try:
        write_atomically(path, json.dumps(asdict(choice)).encode())
    except OSError:  # a full disk: it is tried again next time
        return
