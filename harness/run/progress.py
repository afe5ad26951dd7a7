"""Progress on a terminal: a bar for the suite, a bar for what runs now, and a line for each finished cell.

Nothing is drawn where the output is not a terminal.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Task(Protocol):
    """One piece of work that is running: a context manager around it."""

    def advance(self, n: int = 1, **fields: float) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Reporter(Protocol):
    """Where jobs report how far they are."""

    def task(self, description: str, total: int) -> Task: ...


class _SilentTask:
    def advance(self, n: int = 1, **fields: float) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Silent:
    """Reports nothing: for workers, tests and pipes."""

    def task(self, description: str, total: int) -> Task:
        return _SilentTask()


class _TerminalTask:
    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self._progress = progress
        self._id = progress.add_task(description, total=total, fields="")

    def advance(self, n: int = 1, **fields: float) -> None:
        shown = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in fields.items())
        if shown:
            self._progress.update(self._id, fields=shown)
        self._progress.advance(self._id, n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.remove_task(self._id)


class Terminal:
    """Progress bars, drawn with rich. A context manager around a whole run."""

    def __init__(self, console: Console, cells: int, done: int) -> None:
        self.console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[fields]}"),
            console=console,
        )
        self._overall = self._progress.add_task("[bold]cells", total=cells, completed=done, fields="")

    def task(self, description: str, total: int) -> Task:
        return _TerminalTask(self._progress, description, total)

    def finished(self, line: str) -> None:
        """One more cell is recorded; ``line`` stays above the bars."""
        self._progress.console.print(line, highlight=False, markup=False)
        self._progress.advance(self._overall)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
