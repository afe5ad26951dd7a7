"""Which data files a user's code opens while it is imported, or while a model is built: they decide what it is.

A factory may read its settings from a file, or a module a table. None of that is an import, so the files that Python
opens for reading are noted, each with the file of the user's code that asked for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from epsbench.harness.plan.names.packages import package_of

Reads = set[tuple[Path, Path]]
"""The file of a user's code, and a file that it opened."""

_NOTED: list[Reads] = []
_CODE = (".py", ".pyc", ".so")


@contextmanager
def noted() -> Iterator[Reads]:
    """Note the files that users' code opens for reading inside; the set is complete at the end."""
    _listen()
    reads: Reads = set()
    _NOTED.append(reads)
    try:
        yield reads
    finally:
        _NOTED[:] = [each for each in _NOTED if each is not reads]


@cache
def _listen() -> None:
    sys.addaudithook(_note)


def _note(event: str, details: tuple[Any, ...]) -> None:
    if event != "open" or not _NOTED:
        return
    path, mode, flags = details
    writes = any(each in mode for each in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
    if writes or not isinstance(path, str) or path.endswith(_CODE):
        return
    frame = sys._getframe()
    while frame is not None and not package_of(str(frame.f_globals.get("__name__", ""))):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is not None:
        for reads in _NOTED:
            reads.add((Path(frame.f_code.co_filename), Path(path).absolute()))
