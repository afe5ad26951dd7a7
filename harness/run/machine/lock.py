"""Locks: one run at a time on a results folder, one process at a time on a training."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.files import cannot_write

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
            os.pwrite(file, _holder().encode(), 0)
    except OSError as error:
        if error.errno in _LOCKED:
            holder = os.pread(file, 200, 0).decode(errors="replace").encode("unicode_escape").decode()
            os.close(file)
            raise InputError(
                f"{results}: another run is writing there ({holder}); wait for it, or give another folder with --out "
                "(out= in Python)"
            ) from error
    _LOCKED_FOLDERS[results] = results.stat()
    try:
        yield
    finally:
        del _LOCKED_FOLDERS[results]
        os.close(file)


_LOCKED_FOLDERS: dict[Path, os.stat_result] = {}
"""The results folders that this process has locked, as they were then."""


def require_in_place(results: Path) -> None:
    """Raise `InputError` if this process has locked the folder and it is no longer there.

    What is written then would make another folder of the same name, which is in the way when the first is moved back.
    """
    if (before := _LOCKED_FOLDERS.get(results)) is None:
        return
    try:
        # Some file systems number a folder anew now and then; then its lock is still there.
        same = os.path.samestat(results.stat(), before) or (results / ".lock").read_text() == _holder()
    except (OSError, ValueError):
        same = False
    if not same:
        raise InputError(
            f"{results}: was moved or deleted while this run was writing to it; finished cells are where it is now: "
            "move it back, or name its new place with --out (out= in Python), and the same call goes on from there"
        )


def _holder() -> str:
    return f"process {os.getpid()} on {platform.node()}"


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock of this path, then hold it.

    The file exists as long as the lock. On a file system without locks nobody waits. Raises `InputError` where the
    file cannot be made.
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
