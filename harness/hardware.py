"""What this machine computes on, without torch: the names that records give to devices."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

_NVIDIA = Path("/proc/driver/nvidia/gpus")


@cache
def cpu_name() -> str:
    """The processor and its number of cores."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


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
