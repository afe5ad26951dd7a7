"""What was once read of files is read again only when they change: descriptions and decoded images, in a cache.

The user's files stay as they are, and may lie where nothing can be written. The cache is ``$EPSBENCH_CACHE``, else
``~/.cache/epsbench``; where that cannot be written, everything is read every time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.files import JUST_WRITTEN_NS, cache_folder, stamp_of, write_atomically
from epsbench.harness.plan.data import DataDescription

_VERSION = 2


def stamps(files: Sequence[Path], where: str) -> list[list[int]]:
    """The stamp of each file. Raises `InputError` for a file that is not there."""
    known = []
    for path in files:
        try:
            known.append(list(stamp_of(path)))
        except OSError as error:
            raise InputError(f"{where}: {path} cannot be read ({error.strerror or error}); check the path") from error
    return known


def described(key: str, files: Sequence[Path], where: str, read: Callable[[], DataDescription]) -> DataDescription:
    """The description of the data in ``files``, from the cache where they have not changed since it was made.

    ``key`` is all else that the description depends on.
    """
    folder = cache_folder("data")
    now, started = stamps(files, where), time.time_ns()
    name = hashlib.sha256(f"{_VERSION} {key} {[str(path) for path in files]}".encode()).hexdigest()[:32]
    manifest = folder / f"{name}.json" if folder else None
    if manifest and (known := _load(manifest, now)) is not None:
        return known
    description = read()
    settled = all(started - written > JUST_WRITTEN_NS for written, *_ in now)
    if manifest and settled:
        content = {"files": now, "description": asdict(description)}
        with suppress(OSError):  # a cache that is full or gone costs time and nothing else
            write_atomically(manifest, json.dumps(content).encode())
    return description


def _load(manifest: Path, now: list[list[int]]) -> DataDescription | None:
    try:
        content: dict[str, Any] = json.loads(manifest.read_text())
        if content["files"] != now:
            return None
        known = content["description"]
        shape, sizes = tuple(known["shape"]), tuple(known["sizes"])
        missing = tuple((name, reason) for name, reason in known["missing"])
        lists = {key: tuple(known[key]) for key in ("mean", "std", "class_names")}
        return DataDescription(**known | lists | {"shape": shape, "sizes": sizes, "missing": missing})
    except (OSError, ValueError, KeyError, TypeError):  # not there, damaged, or of another version: made anew
        return None
