"""The progress of an attack, part by part: gradients done of gradients planned."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from epsbench.harness.run.progress import Reporter, Task


class AttackProgress:
    """A `Watch` (`epsbench.harness.run.attack.watch`) that shows an attack. A context manager around the attack."""

    def __init__(self, reporter: Reporter, label: str) -> None:
        """``label`` is the attack's."""
        self._reporter, self._label = reporter, label
        self._task: Task | None = None
        self._over = False

    def begin(self, name: str, total: int) -> None:
        """Show the attack, or its next part, from the beginning."""
        self._end()
        if self._over:  # an audit of a later attack
            return
        part = "" if name in ("", self._label) else f": {name}"
        self._task = self._reporter.task(f"{self._label}{part}", total, "gradients")
        self._task.__enter__()

    def at(self, done: int) -> None:
        """Show how much is done."""
        if self._task is not None:
            self._task.to(done)

    def _end(self) -> None:
        if self._task is not None:
            self._task.__exit__(None, None, None)
            self._task = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._over = True
