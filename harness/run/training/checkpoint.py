"""Checkpoints: the state of a training on disk, from which a killed training is resumed."""

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
from epsbench.harness.files import keep
from epsbench.harness.records import is_there
from epsbench.harness.run.machine.memory import is_out_of_memory

_REMEDY = "delete the file and the next run trains these weights from the start"
_DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoint:
    """The state of a training on disk, from which a killed training is resumed.

    The file is a SHA-256 digest followed by what `torch.save` writes, because torch does not notice a flipped bit in a
    tensor. A state may hold tensors, numbers, strings, lists and dicts; nothing else can be read back.
    """

    def __init__(self, path: Path | None, every: float = 60.0) -> None:
        """A checkpoint at ``path``, due every ``every`` seconds from now on. Without a path nothing is saved."""
        self._path, self._every = path, every
        self._last = time.monotonic()

    def restore(self) -> dict[str, Any] | None:
        """What `save` wrote, its tensors on the CPU; None if there is no file.

        Raises `InputError`, naming the file and the remedy, if the file is damaged.
        """
        if self._path is None or not is_there(self._path):
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
        """The error for a checkpoint of another training. It names the file and the remedy."""
        reason = " ".join(str(error).split())
        return InputError(f"{self._path}: not the checkpoint of this training ({reason}); {_REMEDY}")

    def resume(self, load: Callable[[dict[str, Any]], None]) -> bool:
        """Pass the saved state to ``load``; False if there is none.

        Raises `InputError` as `restore` does, and if ``load`` raises because the state is that of another training.
        """
        if (state := self.restore()) is None:
            return False
        try:
            load(state)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise self.unusable(error) from error
        return True

    def due(self) -> bool:
        """Whether ``every`` seconds have passed since the last save, or since the start."""
        return self._path is not None and time.monotonic() - self._last >= self._every

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state by ``state``, atomically. Raises `InputError` if the file cannot be written."""
        if self._path is None:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        keep(self._path, hashlib.sha256(content).digest() + content)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Delete the file: the training is finished."""
        if self._path is not None and self._path.exists():  # there is nothing to remove in a read-only folder
            self._path.unlink(missing_ok=True)
