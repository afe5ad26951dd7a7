"""Other processes of this machine that help with evaluations, each with a GPU, or with its part of the CPU's cores."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe
from typing import Any

import torch

from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.registry import any_in_memory
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.run.attack.merging import Shard
from epsbench.harness.run.context import Context
from epsbench.harness.run.crew import Helper, HelperLostError
from epsbench.harness.run.executors.helper import Raised, Ready
from epsbench.harness.run.machine.environment import describe_helper, of_child
from epsbench.harness.run.progress import Silent
from epsbench.harness.run.robustness.workbench import Setup, Task
from epsbench.harness.waiting import PASSIVELY, SETTINGS

# Not `-m`: what is sent has its classes from this module, and not from one that is called __main__.
CHILD = "from epsbench.harness.run.executors.helper import main; main({})"
_LOOK = 0.2  # seconds between two looks at whether a helper is still waited for


class ProcessHelper:
    """A process with a device of its own. It is started when it is first needed, and again where it has ended."""

    def __init__(self, context: Context) -> None:
        """``context`` is the run's, with the device that this process has."""
        self._context = context
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._asked: Setup | None = None
        self._pending = 0

    def start(self) -> None:
        """Start the process. It loads torch while this one goes on."""
        if self._process is not None:
            return
        ours, theirs = Pipe()
        try:
            # -P: a file of the current folder that is named like a module of Python's is not taken for it. A session of
            # its own: Ctrl-C reaches the run alone, which decides.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", CHILD.format(theirs.fileno())],
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=self._environment(), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise HelperLostError(f"no further process can be started ({error.strerror})") from error
        finally:
            theirs.close()
        self._connection, self._asked, self._pending = ours, None, 0
        self._send(self._context)

    def _environment(self) -> dict[str, str]:
        """The run's own, with this process's part of the cores."""
        waiting = {} if any(name in os.environ for name in SETTINGS) else PASSIVELY
        return {**of_child(self._context.threads_of_an_attack), **waiting}

    def prepare(self, setup: Setup, over: Callable[[], bool]) -> None:
        """As `Helper.prepare`."""
        self.start()
        if self._asked != setup:
            self._send(setup)
            self._asked, self._pending = setup, self._pending + 1
        while self._pending and not over():
            if self._poll():
                answer = self._receive()
                self._pending -= 1
                if isinstance(answer, Raised):
                    self._asked = None
                    raise answer.error

    def attack(self, task: Task, at: Callable[[float], None]) -> Shard:
        """As `Helper.attack`."""
        self._send(task)
        while not isinstance(answer := self._receive(), Shard):
            if isinstance(answer, Raised):
                raise answer.error
            if isinstance(answer, Ready):
                continue
            at(answer)
        return answer

    def drop(self) -> None:
        """As `Helper.drop`: the process ends."""
        if (process := self._process) is not None:
            with suppress(ProcessLookupError):
                process.kill()

    def end(self) -> None:
        """End the process, and wait until it has ended."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.wait()

    def _send(self, message: object) -> None:
        try:
            if self._connection is None:
                raise BrokenPipeError
            # Not `send`: torch would share its tensors with the other process instead of copying them.
            self._connection.send_bytes(pickle.dumps(message))
        except OSError:
            raise self._lost() from None

    def _poll(self) -> bool:
        try:
            return self._connection is not None and self._connection.poll(_LOOK)
        except OSError:
            raise self._lost() from None

    def _receive(self) -> Any:
        try:
            if self._connection is None:
                raise EOFError
            return pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> HelperLostError:
        process = self._process
        self.end()
        code = process.returncode if process is not None else None
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return HelperLostError(f"a process that helps with the attack ended ({how})")


@dataclass
class Processes:
    """All helping processes of a run: a `Crew`."""

    helpers: Sequence[Helper]
    wanted: bool = True


@contextmanager
def helped(context: Context) -> Iterator[Context]:
    """Inside, the context has the other devices that the run asks for. Raises `InputError` where there are fewer.

    Where it asks for none, a CPU's cores may be shared by processes, which are started when an attack gains by them.
    They cannot help with objects that only this process has.
    """
    if context.devices <= 1:
        on_cores = context.device.type == "cpu" and context.devices == 0 and context.most_threads > 1
        if not on_cores or any_in_memory():
            yield context
            return
        reserve = _Reserve(context)
        try:
            yield replace(context, reserve=reserve)
        finally:
            reserve.end()
        return
    devices = devices_of(context.device, context.devices)
    helpers = [ProcessHelper(_portable(replace(context, device=device))) for device in devices[1:]]
    try:
        for helper in helpers:
            helper.start()
        yield replace(context, device=devices[0], crew=Processes(helpers))
    finally:
        for helper in helpers:
            helper.end()


class _Reserve:
    """Makes processes that share a CPU's cores, and keeps them for the attacks that follow."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._helpers: list[ProcessHelper] = []

    def __call__(self, processes: int) -> Processes:
        if processes != 1 + len(self._helpers):
            self.end()  # those with another number of threads: they would hold memory
            context = _portable(replace(self._context, devices=processes))
            self._helpers = [ProcessHelper(context) for _ in range(processes - 1)]
        return Processes(self._helpers, wanted=False)

    def end(self) -> None:
        """End them all."""
        for helper in self._helpers:
            helper.end()
        self._helpers = []


def devices_of(first: torch.device, count: int) -> list[torch.device]:
    """So many devices, of which the first is given. Raises `InputError` where this machine has fewer GPUs."""
    if first.type == "cpu":
        return [first] * count
    index = first.index or 0
    there = torch.cuda.device_count() - index
    if there < count:
        raise InputError(f"--devices {count}: there are {there} GPUs from cuda:{index} on; give --devices {there}")
    return [torch.device("cuda", index + number) for number in range(count)]


def _portable(context: Context) -> Context:
    """The context for another process: no progress, no helpers of its own, and no data, which it reads itself."""
    environment = context.environment
    if context.device.type == "cuda":
        environment = describe_helper(context.device, environment)
    return replace(
        context,
        environment=environment,
        progress=Silent(),
        crew=None,
        reserve=None,
        boards=False,
        records=RecordIndex(context.results),
        _data={},
    )
