"""One run at a time on a results folder, and one process at a time on a training."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.records import cannot_write

_HELD = {errno.EWOULDBLOCK, errno.EACCES}


@contextmanager
def only_run(results: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises `InputError`, naming the run that holds it, when there is one.

    The lock is the kernel's, so it ends with its process, however that ends; the file that stays behind locks
    nothing. On a file system without locks there is none: two runs there would measure the same cells twice,
    and the records, written atomically, would still be whole.
    """
    path = results / ".lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened ({error.strerror}); give another folder with --out, or correct its owner"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # a courtesy to whoever comes second
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {platform.node()}".encode(), 0)
    except OSError as error:
        if error.errno in _HELD:
            holder = os.pread(file, 200, 0).decode(errors="replace").encode("unicode_escape").decode()
            os.close(file)
            raise InputError(
                f"{results}: another run is writing there ({holder}); wait for it, or give another folder with --out"
            ) from error
    try:
        yield
    finally:
        os.close(file)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait until no other process is inside with this path, and keep the others waiting until the end.

    The file is there meanwhile and gone afterwards. On a file system without locks nobody waits. Raises `InputError`
    where it cannot be made.
    """
    file = _enter(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _enter(path: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(cannot_write(path, error)) from error
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _names(path, file):
            return file
        os.close(file)  # whoever was inside took the file away when leaving


def _names(path: Path, file: int) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
