"""What a process does that helps with evaluations: `main`.

It reads the run's context from a file descriptor, then setups to prepare and ranges to attack, and answers each. It
ends when the other end closes, and soon after the process that started it has ended.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from epsbench.harness.errors import FAILURES, summary
from epsbench.harness.run.robustness.shards import ShareOfParts
from epsbench.harness.run.robustness.workbench import Setup, Task, Workbench

EVERY = 0.5  # seconds between two reports of how much is done


@dataclass(frozen=True)
class Raised:
    """What an attack or a model raised here."""

    error: BaseException


@dataclass(frozen=True)
class Ready:
    """A setup is prepared."""


class Reports:
    """A `Watch` that sends the done share now and then. It ends the process when its owner has ended."""

    def __init__(self, send: Callable[[float], object], parts: int) -> None:
        """``parts`` is the number of attacks, where the attack is an ensemble."""
        self._send, self._share, self._sent, self._owner = send, ShareOfParts(parts), time.monotonic(), os.getppid()

    def begin(self, name: str, total: int) -> None:
        self._share.begin(total)

    def at(self, done: int) -> None:
        if os.getppid() != self._owner:
            os._exit(1)
        if time.monotonic() - self._sent >= EVERY:
            self._sent = time.monotonic()
            self._send(self._share.at(done))


def answer(bench: Workbench, message: bytes, send: Callable[[float], object]) -> Any:
    """What the owner gets: `Ready`, a shard, or what was raised. ``message`` is a pickled `Setup` or `Task`."""
    try:
        asked: Setup | Task = pickle.loads(message)
        if isinstance(asked, Setup):
            bench.prepare(asked)
            return Ready()
        return bench.attack(asked, Reports(send, len(asked.stream.attack.members(asked.logits.shape[1]))))
    # The attack and the model are the user's code: they may raise anything, or even try to exit.
    except FAILURES as error:
        return Raised(portable(error))


def portable(error: BaseException) -> BaseException:
    """The error, or one with its message where it cannot be sent to another process."""
    error.__traceback__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an error's own pickling may raise anything
        return RuntimeError(summary(error))
    return error


def main(descriptor: int) -> None:
    """See the module."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides
    connection: Connection[Any, Any] = Connection(descriptor)

    def send(message: object) -> None:
        connection.send_bytes(pickle.dumps(message))

    try:
        with redirect_stdout(sys.stderr):  # what the user's code prints: standard output is for the report
            bench = Workbench(pickle.loads(connection.recv_bytes()))
            while True:
                send(answer(bench, connection.recv_bytes(), send))
    except (EOFError, OSError):  # the owner has no more work, or has ended
        return
