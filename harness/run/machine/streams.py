"""Standard streams that are closed, full, or piped into a program that reads no further. No torch."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any

from epsbench.harness.errors import InputError


class Guarded:
    """A text stream whose reader may be gone: what is written then is dropped, and the command goes on.

    So the exit code is the command's, and a model that prints does not fail because of it.
    """

    def __init__(self, stream: Any, loses: bool = False) -> None:
        """``loses``: any other error drops the text too, instead of raising `InputError`. For standard error, where
        the message itself would be lost."""
        self._stream, self._loses = stream, loses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text; see the class."""
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered; see the class."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        # What is buffered would fail again at the end of the process. It goes where everything is taken.
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - no path of the user's
            os.dup2(nowhere.fileno(), self._stream.fileno())
        if not isinstance(error, BrokenPipeError) and not self._loses:
            raise InputError(
                f"standard output cannot be written ({error.strerror or error}); finished cells are kept: make room, "
                "and the same command prints it again"
            ) from error


def guard_streams() -> None:
    """From now on the standard streams of this process are never missing, and `Guarded`.

    Characters that they cannot show become "?".
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # the process was started with it closed
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = Guarded(sys.stdout), Guarded(sys.stderr, loses=True)
