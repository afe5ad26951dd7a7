"""What this machine computes on, without torch: the names that records give to devices."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

_NVIDIA = Path("/proc/driver/nvidia/gpus")
_CPUINFO = Path("/proc/cpuinfo")


@cache
def cpu_name() -> str:
    """The processor and its number of cores.

    On Linux with family and model: rented machines with and without AVX-512 are both an "AMD EPYC".
    """
    cores = f"{os.cpu_count()} cores"
    if not _CPUINFO.is_file():
        return f"{platform.processor() or platform.machine()}, {cores}"
    facts: dict[str, str] = {}
    for line in _CPUINFO.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    kind = [f"{each.split()[-1]} {facts[each]}" for each in ("cpu family", "model") if facts.get(each)]
    return f"{name} ({', '.join(kind)}), {cores}" if kind else f"{name}, {cores}"


@cache
def gpu_names() -> tuple[str, ...]:
    """The NVIDIA GPUs that the driver lists, each kind once."""
    names: dict[str, None] = {}
    try:
        for path in sorted(_NVIDIA.glob("*/information")):
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith("Model:"):
                    names[line.partition(":")[2].strip()] = None
    except OSError:  # no permission: then no record of a GPU counts as this machine's
        return ()
    return tuple(names)


def device_names() -> tuple[str, ...]:
    """The devices that a run here takes by default: the GPUs, else the CPU."""
    return gpu_names() or (cpu_name(),)
