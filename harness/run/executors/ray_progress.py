"""Progress of a run on Ray: workers post how far they are to one actor, and the driver shows it.

Posting never waits, and progress alone is lost where the actor is.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from epsbench.harness.run.progress import Reporter, Task

EVERY = 0.5  # seconds between two posts of one task


@dataclass(frozen=True)
class Posted:
    """How far one piece of work is."""

    owner: str
    """The task of Ray that does it."""

    description: str
    total: int | None
    unit: str
    steps: int = 0
    """Units that ended."""
    fields: Mapping[str, float] = field(default_factory=dict)
    """What is shown beside the last of them."""
    done: float = 0.0
    """Units that ended, and the share of those under way."""


class Board:
    """The actor. It holds what the workers are at now."""

    def __init__(self) -> None:
        self._posted: dict[str, Posted] = {}
        self._shares: dict[str, float] = {}

    def post(self, key: str, posted: Posted) -> None:
        """A worker is so far with this piece of work."""
        self._posted[key] = posted

    def remove(self, key: str) -> None:
        """This piece of work has ended."""
        self._posted.pop(key, None)

    def forget(self, owner: str) -> None:
        """This task of Ray has ended, perhaps with its worker."""
        self._posted = {key: each for key, each in self._posted.items() if each.owner != owner}

    def posted(self) -> dict[str, Posted]:
        """What all workers are at."""
        return dict(self._posted)

    def post_share(self, key: str, share: float) -> None:
        """A worker that helps has done this share of its range."""
        self._shares[key] = share

    def take_share(self, key: str) -> float | None:
        """The share that was posted last; None where none is new."""
        return self._shares.pop(key, None)


def start_board(ray: Any) -> Any:
    """The actor, on the driver's machine where there is room: it lasts as long as the run."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()


def share_of(board: Any, key: str) -> float | None:
    """The share that a helping worker posted last; None where none is new, or the actor is lost."""
    import ray

    try:
        share: float | None = ray.get(board.take_share.remote(key))
    except ray.exceptions.RayError:
        return None
    return share


class Posting:
    """A worker's `Reporter`: it posts to the actor."""

    def __init__(self, board: Any, owner: str) -> None:
        self._board, self._owner = board, owner

    def task(self, description: str, total: int | None, unit: str = "") -> Task:
        """As `Reporter.task`."""
        return _PostedTask(self._board, Posted(self._owner, description, total, unit))


class _PostedTask:
    def __init__(self, board: Any, posted: Posted) -> None:
        self._board, self._key, self._now, self._sent = board, uuid.uuid4().hex, posted, 0.0

    def advance(self, n: int = 1, **fields: float) -> None:
        steps = self._now.steps + n
        self._now = replace(self._now, steps=steps, fields=fields, done=max(self._now.done, steps))
        self._post(again=True)

    def to(self, done: float) -> None:
        self._now = replace(self._now, done=max(self._now.done, done))
        self._post(again=False)

    def _post(self, *, again: bool) -> None:
        if again or time.monotonic() - self._sent >= EVERY:
            self._sent = time.monotonic()
            self._board.post.remote(self._key, self._now)

    def __enter__(self) -> Self:
        self._post(again=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.remove.remote(self._key)


class Mirror:
    """The driver's side: shows what the workers post as tasks of its own reporter. A context manager around the run."""

    def __init__(self, ray: Any, reporter: Reporter, board: Any) -> None:
        self._ray, self._reporter, self._board = ray, reporter, board
        self._shown: dict[str, tuple[Task, Posted]] = {}

    def forget(self, owner: str) -> None:
        """This task of Ray has ended."""
        self._board.forget.remote(owner)

    def show(self) -> None:
        """Show what is posted now; nothing where the actor is lost."""
        try:
            posted = self._ray.get(self._board.posted.remote())
        except self._ray.exceptions.RayError:
            posted = {}
        for key in [key for key in self._shown if key not in posted]:
            self._end(key)
        for key, now in posted.items():
            if key not in self._shown:
                task = self._reporter.task(now.description, now.total, now.unit)
                task.__enter__()
                self._shown[key] = task, replace(now, steps=0)
            task, before = self._shown[key]
            if now.steps > before.steps:
                task.advance(now.steps - before.steps, **now.fields)
            task.to(now.done)
            self._shown[key] = task, now

    def _end(self, key: str) -> None:
        task, _ = self._shown.pop(key)
        task.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._shown):
            self._end(key)
