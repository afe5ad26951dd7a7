"""Files of streamed images for workers on machines that do not see them: read where the driver is, in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data.decoded import WorkFolder
from epsbench.harness.plan.data.pixels import MOVED, PixelFile
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.streamed import StreamedExamples

PART = 2**26  # bytes that travel at a time

_COPIES: dict[Path, WorkFolder] = {}
"""Copies that this process has, by the path of the file; they go with it."""


def files_of(data: Iterable[Data]) -> dict[Path, int]:
    """The files that data sets are streamed from, each with its size."""
    files = {}
    for each in data:
        for split in (each.train, each.validation, each.test):
            if isinstance(split, StreamedExamples) and isinstance(split.images, PixelFile):
                path = split.images.path
                files[path] = path.stat().st_size
    return files


def fetch(files: Mapping[Path, int], read: Callable[[Path, int, int], bytes]) -> None:
    """Make copies of those files that this machine does not see; ``read`` gives bytes of a file from a place on."""
    for path, size in files.items():
        if path in _COPIES or (path.is_file() and path.stat().st_size == size):
            continue
        work = WorkFolder("data")
        with work.writing(), (work.path / path.name).open("wb", buffering=0) as file:
            for start in range(0, size, PART):
                work.append_bytes(file, read(path, start, min(PART, size - start)))
        _COPIES[path], MOVED[path] = work, work.path / path.name


def part_of(path: Path, start: int, size: int) -> bytes:
    """Bytes of a file. Raises `InputError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read for another machine ({error.strerror or error})") from error


def reader(ray: Any, node: str) -> Callable[[Path, int, int], bytes]:
    """`part_of` on the node of the cluster that has this id."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0)(part_of).options(scheduling_strategy=there)

    def read(path: Path, start: int, size: int) -> bytes:
        content: bytes = ray.get(task.remote(path, start, size))
        return content

    return read
