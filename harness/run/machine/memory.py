"""Memory: keep freed memory for the next step, recognise out of memory, and go on with smaller batches."""

from __future__ import annotations

import ctypes
import gc
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

_CPU_MESSAGES = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
# glibc's mallopt(3): the number of each parameter and its value in bytes. 32 MiB is the largest M_MMAP_THRESHOLD.
_KEEPING = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_MMAP_THRESHOLD": (-3, 2**25), "M_TOP_PAD": (-2, 2**26)}


def keep_freed(device: torch.device) -> bool:
    """Let this process keep a CPU's freed memory, as CUDA's caching allocator does. Returns whether it will.

    The temporaries of a step are some megabytes each. By default glibc returns such blocks to the system at every
    free, and the next step waits for each of their pages again, which was half the time of a small network's gradient.
    `release` and `reset_peak` return what was kept. Other C libraries than glibc are left as they are.
    """
    libc = _glibc() if device.type == "cpu" else None
    return libc is not None and all(libc.mallopt(number, value) == 1 for number, value in _KEEPING.values())


def _glibc() -> ctypes.CDLL | None:
    """This process's C library if it is glibc, else None: others lack these functions, or they do something else."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # there is no C library of that name
        return None
    return libc if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None


def _trim() -> None:
    """Return to the system what malloc keeps of freed memory."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means out of memory, on CUDA or a CPU; a CPU's allocator raises a plain `RuntimeError`."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _CPU_MESSAGES)


def release() -> None:
    """Return cached memory. Call it outside the ``except`` block: a live traceback keeps tensors alive."""
    gc.collect()
    _trim()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_chunks(function: Callable[[slice], Tensor], n: int, batch: int) -> Tensor:
    """``function`` of slices of at most ``batch`` that cover 0 to n, concatenated; it gives one row for each index.

    Out of memory halves the batch, down to one.
    """
    # One tensor is filled part by part. Thousands of small parts, kept between large temporaries, would fragment the
    # heap until no temporary fits between them, and the process would grow by gigabytes.
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
    """Start measuring `peak_bytes` again."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _trim()  # what earlier work has freed is not part of this peak
        with suppress(OSError):  # only Linux can reset it; elsewhere the peak is that since the process began
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
