"""Memory: keeping what is freed, recognising that there is no more, and going on with less."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

_CPU_WORDS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
# glibc's mallopt(3): what to set, to how many bytes. 32 MiB is the most it takes for the second.
_KEEPING = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_MMAP_THRESHOLD": (-3, 2**25), "M_TOP_PAD": (-2, 2**26)}


def keep_freed(device: torch.device) -> bool:
    """Let this process keep what it frees of a CPU's memory, as CUDA's caching allocator does; whether it will.

    A step's temporaries are some megabytes each. glibc gives such blocks back to the system at every free, and the
    next step pays for each of their pages again: half of a small network's gradient, measured. `release` and
    `reset_peak` give back what was kept. Another C library than glibc goes on as before.
    """
    libc = _glibc() if device.type == "cpu" else None
    return libc is not None and all(libc.mallopt(number, value) == 1 for number, value in _KEEPING.values())


def _glibc() -> ctypes.CDLL | None:
    """This process's C library, if it is glibc: others have no such functions, or none that do this."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # no C library to be asked by that name
        return None
    return libc if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None


def _trim() -> None:
    """Give the system what malloc keeps of freed memory."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


def is_out_of_memory(error: BaseException) -> bool:
    """True for CUDA's and the CPU allocator's ways of saying it; the latter is a bare `RuntimeError`."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_WORDS)


def release() -> None:
    """Give cached memory back. Call it outside the ``except`` block: a live traceback keeps tensors alive."""
    gc.collect()
    _trim()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_chunks(function: Callable[[slice], Tensor], n: int, batch: int) -> Tensor:
    """``function`` over slices that cover 0 to n, concatenated; it gives as many rows as its slice has.

    Out of memory halves the batch, down to one.
    """
    # Filled as it goes: thousands of small parts, kept between large temporaries, would leave the heap in splinters
    # that no temporary fits into, and a process grows by gigabytes.
    whole: Tensor | None = None
    start = 0
    while start < n or whole is None:
        try:
            part = function(slice(start, min(start + batch, n)))
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            exhausted = True
        else:
            exhausted = False
            if whole is None:
                whole = part.new_empty((n, *part.shape[1:]))
            whole[start : start + len(part)] = part
            del part
            start += batch
        if exhausted:
            batch //= 2
            release()
    return whole


def reset_peak(device: torch.device) -> None:
    """Start measuring `peak_bytes` anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _trim()  # what earlier work has freed is not part of this peak
        with suppress(OSError):  # Linux alone can reset it; elsewhere the peak is the process's since its start
            Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Peak bytes since `reset_peak`: allocated on a CUDA device, resident for a CPU process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
