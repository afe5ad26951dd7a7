"""A copy of a trained model in a process that never encodes what the measures encode.

A decoder that remembers images, in itself, in a global variable or by their codes, has seen none of them there.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.errors import summary
from epsbench.harness.run.generative.parts import Parts
from epsbench.harness.run.generative.witness import some_pixels
from epsbench.harness.run.machine.copies import copy_of
from epsbench.models.vae import VAENetwork

PATIENCE = 300.0  # seconds that an answer may take; a forked process may hang in a library that is not made for it
AT_ONCE = 16  # rows of the batches that are compared with rows alone
ALONE, AGAIN = 32, 16  # rows of each part that are asked alone, and once more
COMPILED = re.compile(r"__pycache__|torchinductor|triton|^/(dev|proc|sys)/")
CLOCK = 0.01  # seconds by which the clock of a file system may be behind


@dataclass(frozen=True)
class Answers:
    """What a part of the model says of the same rows in several ways, each in the order of the rows."""

    alone: Tensor
    """Each row in a batch of its own."""

    again: Tensor
    """The first of them once more."""

    together: Tensor
    """In batches, in reverse order."""

    differentiated: Tensor
    """The same with gradients enabled."""


class ModelRaises(RuntimeError):  # noqa: N818 - it says what happened
    """The model raises in the other process."""


class Apart:
    """Asks the copy. It is a forked process where there are such, and else a deep copy of the model in this process."""

    def __init__(self, vae: VAENetwork, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._vae = _on_cpu(vae)
        self.same_device = self._vae is vae
        """Whether the copy computes on the device that the model is on."""

        self._connection: Connection | None = None
        self._pid = 0
        if hasattr(os, "fork"):
            self._fork()
        else:
            self._vae = copy_of(self._vae)

    def ask(self, part: str, rows: Tensor, *, after_blank: bool = False) -> Answers:
        """The answers of one of `epsbench.harness.run.generative.witness.PARTS` to rows of its input, on the CPU.

        With ``after_blank`` as many blank images are encoded before each batch: what a part remembers of the images
        encoded last is then the same for every row. Raises `RuntimeError` if the copy raises, ends or does not answer.
        """
        return Answers(*self._ask("answers", part, rows, after_blank))

    def ask_in_batch(self, part: str, row: Tensor, batch: int, gradients: bool) -> Tensor:
        """The answer to one row (1, ...) in a batch of its copies, with gradients enabled or not. Raises as `ask`."""
        (answer,) = self._ask("in_batch", part, row, (batch, gradients))
        return answer

    def _ask(self, how: str, part: str, rows: Tensor, more: object) -> tuple[Tensor, ...]:
        if self._connection is None:
            return WAYS[how](Parts(self._vae, self._shape), part, rows.cpu(), more)
        try:
            self._connection.send((how, part, rows.cpu().numpy(), more))
            if not self._connection.poll(PATIENCE):
                raise RuntimeError(f"the model did not answer in {PATIENCE:g} s in a process of its own")
            reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("the process with a copy of the model has ended") from error
        if isinstance(reply, str):
            raise ModelRaises(f"the model raises in a process of its own: {reply}")
        return tuple(map(torch.from_numpy, reply))

    def close(self) -> None:
        """End the process."""
        if self._connection is None:
            return
        self._connection.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self._connection = None

    def _fork(self) -> None:
        ours, theirs = Pipe()
        with warnings.catch_warnings():
            # Python warns that a process with threads must not be forked. The copy takes no lock of theirs: like a
            # worker of torch's DataLoader, it computes on one thread.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _serve(self._vae, self._shape, theirs)
        theirs.close()
        self._connection = ours


@contextmanager
def apart(vae: VAENetwork, shape: tuple[int, int, int]) -> Iterator[Apart]:
    """A copy of the model as it is now, until the end of the block."""
    process = Apart(vae, shape)
    try:
        yield process
    finally:
        process.close()


def answers(parts: Parts, part: str, rows: Tensor, after_blank: bool) -> tuple[Tensor, ...]:
    """The entries of `Answers`."""

    def answer(batch: Tensor, gradients: bool = False) -> Tensor:
        if after_blank and part != "encode":
            with torch.no_grad():
                parts.encode(torch.zeros(len(batch), *parts.shape, dtype=torch.int64))
        return _answer(parts, part, batch, gradients)

    def alone(n: int) -> Tensor:
        return torch.cat([answer(row) for row in rows[:n].split(1)])

    def together(gradients: bool) -> Tensor:
        return torch.cat([answer(batch, gradients) for batch in rows.flip(0).split(AT_ONCE)]).flip(0)

    parts.eval()
    return alone(ALONE), alone(AGAIN), together(False), together(True)


def in_batch(parts: Parts, part: str, row: Tensor, how: tuple[int, bool]) -> tuple[Tensor, ...]:
    """What `Apart.ask_in_batch` returns, as the only entry."""
    batch, gradients = how
    parts.eval()
    return (_answer(parts, part, row.expand(batch, *row.shape[1:]).clone(), gradients)[:1],)


WAYS: dict[str, Callable[..., tuple[Tensor, ...]]] = {"answers": answers, "in_batch": in_batch}


def _answer(parts: Parts, part: str, batch: Tensor, gradients: bool) -> Tensor:
    with torch.set_grad_enabled(gradients):
        if gradients and batch.is_floating_point():
            batch = batch.requires_grad_()
        if part == "encode":
            return torch.stack(parts.encode(batch), dim=1).detach()
        if part == "decode":
            return some_pixels(parts.logits(batch))
        return parts.prior.log_prob(batch).detach()


def _on_cpu(vae: VAENetwork) -> VAENetwork:
    on_device = any(each.device.type != "cpu" for each in (*vae.parameters(), *vae.buffers()))
    return copy_of(vae).cpu() if on_device else vae  # a forked process cannot use a GPU


def _serve(vae: VAENetwork, shape: tuple[int, int, int], connection: Connection) -> None:
    """Answer until the other end is closed, and end this process without running any exit handlers of the parent."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes the connection
        torch.set_num_threads(1)  # the threads of the parent do not exist here, and waiting for them would never end
        _hide_later_files()
        while True:
            how, part, rows, more = connection.recv()
            connection.send(_reply(Parts(vae, shape), how, part, rows, more))
    except (EOFError, OSError):
        pass  # the parent has ended or needs no more
    finally:
        os._exit(0)


def _hide_later_files() -> None:
    """Make files that change from now on missing to this process: a model may keep what it sees in one.

    What Python and torch compile themselves is left alone.
    """
    began = time.time()

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "sqlite3.connect") or not isinstance(path := arguments[0], str | bytes):
            return
        if (event == "open" and _writes(*arguments[1:])) or COMPILED.search(os.fsdecode(path)):
            return
        try:
            later = Path(os.fsdecode(path)).stat().st_mtime > began - CLOCK
        except OSError:
            return
        if later:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    sys.addaudithook(check)


def _writes(mode: str | None, flags: int) -> bool:
    """Whether a file is opened to be written alone, as a log is."""
    return not {"r", "+"} & set(mode) if mode else flags & os.O_ACCMODE == os.O_WRONLY


def _reply(parts: Parts, how: str, part: str, rows: np.ndarray, more: object) -> tuple[np.ndarray, ...] | str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(each.float().numpy() for each in WAYS[how](parts, part, torch.from_numpy(rows), more))
    # The model is the user's code and may raise anything; the parent raises it again.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return summary(error)
