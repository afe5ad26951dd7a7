"""Who helps with an evaluation: other processes of this machine, or workers of a cluster, each with a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class HelperLostError(RuntimeError):
    """A helper ended before it answered. What it worked on is done again."""


class Helper(Protocol):
    """One other device."""

    def prepare(self, setup: Any, over: Callable[[], bool]) -> None:
        """Wait until it is there and has what all shards of one model need, or until ``over()``.

        ``setup`` is a `epsbench.harness.run.robustness.workbench.Setup`. Raises `HelperLostError`.
        """

    def attack(self, task: Any, at: Callable[[float], None]) -> Any:
        """Attack some targets; returns a `epsbench.harness.run.attack.merging.Shard`.

        ``task`` is a `epsbench.harness.run.robustness.workbench.Task`. ``at`` is called now and then with the
        share that is done. Raises `HelperLostError`, or what the attack raises.
        """

    def drop(self) -> None:
        """Give up what it works on, from another thread. `attack` then raises `HelperLostError`."""


class Crew(Protocol):
    """All helpers of a run. This process works as well, so n devices are n - 1 helpers."""

    @property
    def helpers(self) -> Sequence[Helper]:
        """They, in any order."""

    @property
    def wanted(self) -> bool:
        """Whether the user asked for them. Else an attack goes on without those that cannot help."""
