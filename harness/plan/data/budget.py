"""How much memory the images of one data set may take; a larger one is streamed from a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from epsbench.harness.errors import InputError

VARIABLE = "EPSBENCH_DATA_MEMORY"
SHARE = 4  # without the variable, the images may take one part in so many of the machine's memory
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def budget() -> int:
    """Bytes: what ``EPSBENCH_DATA_MEMORY`` says, else a quarter of the machine's memory.

    Raises `InputError` for a value that is no size.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        return size_of(text) if text.strip() else machine_memory() // SHARE
    except ValueError as error:
        raise InputError(f"{VARIABLE}: {error}") from error


def size_of(text: str) -> int:
    """Bytes of a text such as ``"500M"``, ``"8G"`` or ``"0"``. Raises `ValueError` for what is no size."""
    plain = text.strip().upper().removesuffix("B").removesuffix("I").strip()
    number, unit = (plain[:-1], plain[-1]) if plain and plain[-1] in _UNITS else (plain, "")
    try:
        value = float(number) * _UNITS[unit]
    except ValueError:
        value = -1.0
    if not 0 <= value < 2**62:
        raise ValueError(f"{text!r} is no size; give bytes, or such as 500M or 8G; 0 streams all data of your own")
    return int(value)


def machine_memory() -> int:
    """The bytes of memory of the machine, or of the container that this process is in."""
    limits = [2**34]  # where the system does not say
    with suppress(OSError, ValueError, AttributeError):
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
            limits.append(int(Path(place).read_text()))
    return min(limits)
