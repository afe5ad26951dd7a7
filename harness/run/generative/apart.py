"""A copy of a trained model in a process that never encodes what the measures encode.

A decoder that remembers images, in itself, in a global variable or by their codes, has seen none of them there.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

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
ALONE = 64  # rows asked alone, of each part


@dataclass(frozen=True)
class Answers:
    """What a part of the model says of the same rows in several ways, each (n, ...) in the order of the rows."""

    alone: Tensor
    """Each row in a batch of its own."""

    again: Tensor
    """The same once more."""

    together: Tensor
    """In batches, in reverse order."""


class ModelRaises(RuntimeError):  # noqa: N818 - it says what happened
    """The model raises in the other process."""


class Apart:
    """Asks the copy. It is a forked process where there are such, and else a deep copy of the model in this process."""

    def __init__(self, vae: VAENetwork, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._vae = _on_cpu(vae)
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
        if self._connection is None:
            return Answers(*answers(Parts(self._vae, self._shape), part, rows.cpu(), after_blank))
        try:
            self._connection.send((part, rows.cpu().numpy(), after_blank))
            if not self._connection.poll(PATIENCE):
                raise RuntimeError(f"the model did not answer in {PATIENCE:g} s in a process of its own")
            reply = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("the process with a copy of the model has ended") from error
        if isinstance(reply, str):
            raise ModelRaises(f"the model raises in a process of its own: {reply}")
        return Answers(*map(torch.from_numpy, reply))

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


def answers(parts: Parts, part: str, rows: Tensor, after_blank: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The three entries of `Answers`."""
    parts.eval()

    def answer(batch: Tensor) -> Tensor:
        with torch.no_grad():
            if part == "encode":
                return torch.stack(parts.encode(batch), dim=1)
            if after_blank:
                parts.encode(torch.zeros(len(batch), *parts.shape, dtype=torch.int64))
            return some_pixels(parts.decoder(batch)) if part == "decode" else parts.prior.log_prob(batch)

    def alone() -> Tensor:
        return torch.cat([answer(row) for row in rows[:ALONE].split(1)])

    together = torch.cat([answer(batch) for batch in rows.flip(0).split(AT_ONCE)]).flip(0)
    return alone(), alone(), together


def _on_cpu(vae: VAENetwork) -> VAENetwork:
    on_device = any(each.device.type != "cpu" for each in (*vae.parameters(), *vae.buffers()))
    return copy_of(vae).cpu() if on_device else vae  # a forked process cannot use a GPU


def _serve(vae: VAENetwork, shape: tuple[int, int, int], connection: Connection) -> None:
    """Answer until the other end is closed, and end this process without running any exit handlers of the parent."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes the connection
        torch.set_num_threads(1)  # the threads of the parent do not exist here, and waiting for them would never end
        while True:
            part, rows, after_blank = connection.recv()
            connection.send(_reply(Parts(vae, shape), part, rows, after_blank))
    except (EOFError, OSError):
        pass  # the parent has ended or needs no more
    finally:
        os._exit(0)


def _reply(parts: Parts, part: str, rows: np.ndarray, after_blank: bool) -> tuple[np.ndarray, ...] | str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tuple(each.float().numpy() for each in answers(parts, part, torch.from_numpy(rows), after_blank))
    # The model is the user's code and may raise anything; the parent raises it again.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return summary(error)
