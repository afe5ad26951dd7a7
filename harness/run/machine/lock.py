"""Locks: one run at a time on a results folder, one process at a time on a training."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.files import IN_USE, cannot_write, holder, require_around

_LOCKED = {errno.EWOULDBLOCK, errno.EACCES}


@contextmanager
def only_run(results: Path) -> Iterator[None]:
    """Lock the results folder. Raises `InputError` if another run has locked it, and names that run.

    The lock is the kernel's, so it ends with its process, even a killed one; the file that is left locks nothing. On a
    file system without locks, two runs would measure the same cells twice. Their records would still be whole, since
    they are written atomically.
    """
    path = results / ".lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened ({error.strerror}); give another folder with --out (out= in Python), or correct "
            "its owner"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # only for the message that a second run shows
            os.ftruncate(file, 0)
            os.pwrite(file, holder().encode(), 0)
    except OSError as error:
        if error.errno in _LOCKED:
            other = os.pread(file, 200, 0).decode(errors="replace").encode("unicode_escape").decode()
            os.close(file)
            raise InputError(
                f"{results}: another run is writing there ({other}); wait for it, or give another folder with --out "
                "(out= in Python)"
            ) from error
    IN_USE[results] = results.stat()
    try:
        yield
    finally:
        del IN_USE[results]
        os.close(file)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock of this path, then hold it.

    The file exists as long as the lock. On a file system without locks nobody waits. Raises `InputError` where the
    file cannot be made, and as `require_around`.
    """
    file = _enter(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _enter(path: Path) -> int:
    while True:
        require_around(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _names(path, file):
            return file
        os.close(file)  # the process that held the lock removed the file at its end


def _names(path: Path, file: int) -> bool:
    """Whether the path still names the open file, and no newer one."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
