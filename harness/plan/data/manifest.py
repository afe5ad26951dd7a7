"""What was once read of files is read again only when they change: their description is in a cache.

The user's files stay as they are, and may lie where nothing can be written. The cache is ``$EPSBENCH_CACHE``, else
``~/.cache/epsbench``; where that cannot be written, everything is read every time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.files import JUST_WRITTEN_NS, cache_folder, stamp_of, write_atomically
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.decoded import forget

_VERSION = 3
_KNOWN: dict[str, tuple[str, DataDescription]] = {}
"""What this process has described: of use where no cache can be written."""


@dataclass(frozen=True)
class State:
    """What shows whether files have changed."""

    digest: str
    """Of the path and the stamp of each."""
    newest: int
    """When the last of them was written, in nanoseconds."""

    @classmethod
    def of(cls, files: Iterable[Path], where: str) -> State:
        """The state of files now. Raises `InputError` for a file that is not there."""
        digest, newest = hashlib.sha256(), 0
        for path in files:
            try:
                stamp = stamp_of(path)
            except OSError as error:
                reason = error.strerror or error
                raise InputError(f"{where}: {path} cannot be read ({reason}); check the path") from error
            digest.update(f"{path} {stamp}\n".encode("utf-8", "replace"))
            newest = max(newest, stamp[0])
        return cls(digest.hexdigest(), newest)


def described(key: str, files: Sequence[Path], where: str, read: Callable[[], DataDescription]) -> DataDescription:
    """The description of the data in ``files``, from the cache where they have not changed since it was made.

    ``key`` is all else that the description depends on, and says which data it is.
    """
    folder = cache_folder("data")
    now, started = State.of(files, where), time.time_ns()
    name = hashlib.sha256(f"{_VERSION} {key}".encode("utf-8", "replace")).hexdigest()[:32]
    manifest = folder / f"{name}.json" if folder else None
    before = _load(manifest) if manifest else _KNOWN.get(name)
    if before and before[0] == now.digest:
        return before[1]
    description = read()
    if State.of(files, where) != now:
        raise InputError(f"{where}: its files changed while they were read; leave them alone during a run")
    if started - now.newest > JUST_WRITTEN_NS:
        _KNOWN[name] = now.digest, description
        if manifest:
            content = {"files": now.digest, "description": asdict(description)}
            with suppress(OSError):  # a cache that is full or gone costs time and nothing else
                write_atomically(manifest, json.dumps(content).encode())
    if before and before[1].content != description.content:
        forget(before[1].content)
    return description


def _load(manifest: Path) -> tuple[str, DataDescription] | None:
    try:
        content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        known = content["description"]
        shape, sizes = tuple(known["shape"]), tuple(known["sizes"])
        missing = tuple((name, reason) for name, reason in known["missing"])
        lists = {key: tuple(known[key]) for key in ("mean", "std", "class_names")}
        described = DataDescription(**known | lists | {"shape": shape, "sizes": sizes, "missing": missing})
        return str(content["files"]), described
    except (OSError, ValueError, KeyError, TypeError):  # not there, damaged, or of another version: made anew
        return None
