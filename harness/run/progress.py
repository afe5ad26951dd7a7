"""Progress: bars on a terminal; elsewhere a line for each finished cell, and a line a minute for what runs now.

The time left follows from the time that the finished part took. It is shown once enough is finished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from epsbench.harness.durations import shown

EVERY = 60.0  # seconds between two lines where the output is no terminal
_GUESS_SECONDS, _GUESS_SHARE = 3.0, 0.02  # the remaining time is not shown before so much has passed, and is done
_REDRAW = 0.1  # seconds between two changes of a bar


class Task(Protocol):
    """One piece of work that is running: a context manager around it."""

    def advance(self, n: int = 1, **fields: float) -> None:
        """So many more units are done; ``fields`` are numbers to show beside it."""

    def to(self, done: float) -> None:
        """So many units are done, counted from the beginning."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Reporter(Protocol):
    """Where jobs report how far they are."""

    def task(self, description: str, total: int | None, unit: str = "") -> Task:
        """A piece of work of so many units; None: their number is not known, and only the description is shown."""


class _SilentTask:
    def advance(self, n: int = 1, **fields: float) -> None:
        pass

    def to(self, done: float) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Silent:
    """Reports nothing: for workers, tests and ``--quiet``."""

    def task(self, description: str, total: int | None, unit: str = "") -> Task:
        return _SilentTask()


def remaining(passed: float, share: float) -> float | None:
    """The seconds that are left when this share of the work took ``passed`` seconds; None where that is a guess."""
    if passed < _GUESS_SECONDS or share < _GUESS_SHARE:
        return None
    return passed * (1 - share) / share


class Count:
    """How much of something is done, and since when."""

    def __init__(self, total: float | None, clock: Callable[[], float]) -> None:
        self.total, self.clock, self.began = total, clock, clock()
        self.whole, self.done, self.first = 0.0, 0.0, 0.0

    def advance(self, n: float) -> None:
        """So much more is done. What was done before this process, as by a resumed training, says nothing of time."""
        self.whole += n
        self.done = self.whole

    def left(self) -> str:
        """``"about 5 min left"``; empty while it cannot be estimated."""
        if not self.total or self.total <= self.first:
            return ""
        seconds = remaining(self.clock() - self.began, (self.done - self.first) / (self.total - self.first))
        return "" if seconds is None else f"about {shown(seconds)} left"

    def text(self, unit: str) -> str:
        """``"3 of 10 epochs"``; empty where there is no total."""
        if not self.total:
            return ""
        done = f"{self.done:,.1f}" if self.total < 1000 and self.done % 1 else f"{self.done:,.0f}"
        return f"{done} of {self.total:,.0f}{f' {unit}' if unit else ''}"


class _Shown:
    """What runs now, for both kinds of output."""

    def __init__(self, description: str, total: int | None, unit: str, on_change: Callable[[_Shown], None],
                 on_end: Callable[[_Shown], None], clock: Callable[[], float]) -> None:  # fmt: skip
        self.description, self.unit, self.fields = description, unit, ""
        self.count, self.clock, self.drawn = Count(total, clock), clock, 0.0
        self._on_change, self._on_end = on_change, on_end

    def advance(self, n: int = 1, **fields: float) -> None:
        self.count.advance(n)
        if "resumed_after_epoch" in fields and self.count.whole == n:
            self.count.first = n
        self.fields = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in fields.items())
        self._on_change(self)

    def to(self, done: float) -> None:
        self.count.done = max(self.count.done, done)
        if self.clock() - self.drawn >= _REDRAW:
            self.drawn = self.clock()
            self._on_change(self)

    def line(self) -> str:
        """``"training smallcnn: 3 of 10 epochs, about 5 min left"``."""
        parts = [each for each in (self.count.text(self.unit), self.count.left()) if each]
        return f"{self.description}{': ' if parts else ''}{', '.join(parts)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._on_end(self)


class Cells:
    """The cells of a run, each with its share of the work: cheap ones say little about dear ones."""

    def __init__(self, costs: Mapping[str, float], done: int, clock: Callable[[], float]) -> None:
        """``costs`` has the cells to measure, in any unit; ``done`` is how many cells were recorded before."""
        self._costs, self._before, self._finished = costs, done, 0
        self._work = Count(sum(costs.values()), clock)

    def finished(self, identity: str) -> None:
        """One more is recorded."""
        self._finished += 1
        self._work.advance(self._costs.get(identity, 0.0))

    @property
    def done(self) -> int:
        """How many are recorded."""
        return self._before + self._finished

    def line(self) -> str:
        """``"12 of 40 cells, about 20 min left"``."""
        return ", ".join(filter(None, [f"{self.done} of {self._before + len(self._costs)} cells", self._work.left()]))

    def left(self) -> str:
        """``"about 20 min left"``; empty while it cannot be estimated."""
        return self._work.left()


class Terminal:
    """Progress bars, drawn with rich. A context manager around a whole run."""

    def __init__(self, console: Console, costs: Mapping[str, float], done: int) -> None:
        """``costs`` and ``done`` as `Cells` takes them."""
        self.console, self._cells = console, Cells(costs, done, time.monotonic)
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(), TextColumn("{task.fields[left]}"), TextColumn("[dim]{task.fields[fields]}"),
            console=console,
        )  # fmt: skip
        self._overall = self._progress.add_task("[bold]cells", total=done + len(costs), completed=done, fields="",
                                                count=f"{done} of {done + len(costs)}", left="")  # fmt: skip
        self._ids: dict[int, TaskID] = {}

    def task(self, description: str, total: int | None, unit: str = "") -> Task:
        work = _Shown(description, total, unit, self._draw, self._remove, time.monotonic)
        # Without a total rich draws a bar that only shows that something happens.
        self._ids[id(work)] = self._progress.add_task(description, total=total, fields="", left="",
                                                      count=work.count.text(unit))  # fmt: skip
        return work

    def finished(self, identity: str, line: str) -> None:
        """The cell with this id is recorded; ``line`` stays above the bars."""
        self._progress.console.print(line, highlight=False, markup=False)
        self._cells.finished(identity)
        self._progress.update(self._overall, completed=self._cells.done, left=self._cells.left(),
                              count=self._cells.line().partition(" cells")[0])  # fmt: skip

    def _draw(self, work: _Shown) -> None:
        self._progress.update(self._ids[id(work)], completed=work.count.done, count=work.count.text(work.unit),
                              left=work.count.left(), fields=work.fields)  # fmt: skip

    def _remove(self, work: _Shown) -> None:
        self._progress.remove_task(self._ids.pop(id(work)))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Lines:
    """A line for each cell, and one a minute for what runs now. A context manager around a whole run."""

    def __init__(
        self, write: Callable[[str], None], costs: Mapping[str, float], done: int, every: float = EVERY
    ) -> None:
        """``write`` takes a line; ``costs`` and ``done`` as `Cells` takes them; ``every`` are the seconds."""
        self._write, self._cells, self._every = write, Cells(costs, done, time.monotonic), every
        self._running: list[_Shown] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._each_minute, name="epsbench progress", daemon=True)

    def task(self, description: str, total: int | None, unit: str = "") -> Task:
        work = _Shown(description, total, unit, lambda work: None, self._running.remove, time.monotonic)
        self._running.append(work)
        return work

    def finished(self, identity: str, line: str) -> None:
        """The cell with this id is recorded."""
        self._cells.finished(identity)
        self._write(f"[{self._cells.done}] {line}")

    def now(self) -> str:
        """What a line says: the cells, and what runs now."""
        return "; ".join([self._cells.line(), *(work.line() for work in list(self._running))])

    def _each_minute(self) -> None:
        while not self._over.wait(self._every):
            self._write(self.now())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
