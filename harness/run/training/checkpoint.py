"""Where a training stands, on disk: one that is killed goes on from there."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from epsbench.harness.errors import InputError
from epsbench.harness.records import keep
from epsbench.harness.run.machine.memory import is_out_of_memory

_REMEDY = "delete the file and the next run trains these weights from the start"
_DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoint:
    """Where a training stands, on disk, so that a killed one goes on from there.

    The file is a SHA-256 digest followed by what `torch.save` writes: torch itself does not notice a flipped bit
    in a tensor. A state holds tensors, numbers, strings, lists and dicts; nothing else is read back.
    """

    def __init__(self, path: Path | None, every: float = 60.0) -> None:
        """A checkpoint at ``path``, due every so many seconds from now on. Without a path nothing is kept."""
        self._path, self._every = path, every
        self._last = time.monotonic()

    def restore(self) -> dict[str, Any] | None:
        """What `save` kept, its tensors on the CPU; None when there is nothing.

        Raises `InputError`, naming the file and the remedy, when it is damaged.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            stored = self._path.read_bytes()
            digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
            if hashlib.sha256(content).digest() != digest:
                raise ValueError("it is not as it was written")
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (OSError, ValueError, RuntimeError, UnpicklingError) as error:
            raise self.unusable(error) from error
        return state

    def unusable(self, error: Exception) -> InputError:
        """What to raise where this is the checkpoint of something else: it names the file and the remedy."""
        reason = " ".join(str(error).split())
        return InputError(f"{self._path}: not the checkpoint of this training ({reason}); {_REMEDY}")

    def resume(self, take_up: Callable[[dict[str, Any]], None]) -> bool:
        """Hand what is kept to ``take_up``; False when there is nothing.

        Raises `InputError`, as `restore` does, and where ``take_up`` finds the state of another training.
        """
        if (state := self.restore()) is None:
            return False
        try:
            take_up(state)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise self.unusable(error) from error
        return True

    def due(self) -> bool:
        """Whether so many seconds have passed since the last save, or since the start."""
        return self._path is not None and time.monotonic() - self._last >= self._every

    def save(self, state: dict[str, Any]) -> None:
        """Replace what is kept by ``state``, atomically. Raises `InputError` when it cannot be written."""
        if self._path is None:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        keep(self._path, hashlib.sha256(content).digest() + content)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Keep nothing any more: the training is finished."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
