"""From a suite to the work left: which cells share a trained model, which are recorded already, what it will cost."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from epsbench.attacks.base import GradientAttack
from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.names.registry import make
from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import read_record, record_path


@dataclass(frozen=True)
class Job:
    """The cells that share one trained model: the unit of scheduling. ``key`` is the key of its weights."""

    key: str
    task: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """A suite's jobs and, by cell id, what its results folder holds of them.

    A failed cell is run again by the next run; a void one is not: the same cell would be void again.
    """

    suite: Suite
    jobs: tuple[Job, ...]
    done: frozenset[str]
    failed: frozenset[str]
    void: frozenset[str]

    @property
    def pending(self) -> tuple[Cell, ...]:
        """The cells the next run computes, in the order of the jobs."""
        settled = self.done | self.void
        return tuple(cell for job in self.jobs for cell in job.cells if cell.id not in settled)

    @property
    def pending_jobs(self) -> tuple[Job, ...]:
        """The jobs with something pending, holding nothing else.

        A curve whose ε depend on each other is measured whole: one ε missing, all its ε run again.
        """
        pending = {cell.id for cell in self.pending}
        for job in self.jobs:
            curves = [cell for cell in job.cells if isinstance(cell, RobustnessCell) and cell.curve_eps]
            torn = {cell.stream for cell in curves if cell.id in pending}
            pending |= {cell.id for cell in curves if cell.stream in torn}
        left = (Job(job.key, job.task, tuple(cell for cell in job.cells if cell.id in pending)) for job in self.jobs)
        return tuple(job for job in left if job.cells)

    def predicted_gradients(self, cell: Cell) -> int:
        """Input gradients the cell's attack takes at most: steps × restarts × test examples; 0 where it takes none.

        An upper bound: examples that are wrong or soon fooled cost less. A free-form attack is counted as 0.
        """
        if not isinstance(cell, RobustnessCell):
            return 0
        attack = make("attack", cell.attack, self.suite.base, norm=cell.norm)
        if not isinstance(attack, GradientAttack):
            return 0
        return attack.steps * attack.restarts * examples(cell)


def examples(cell: Cell) -> int:
    """How many test examples a cell is measured on."""
    size = DATASETS[cell.data].sizes[2]
    return size if cell.limit is None else min(size, cell.limit)


def plan(suite: Suite, results: Path) -> Plan:
    """Group a suite's cells into jobs and look up what is recorded.

    Raises one `InputError` naming every record of the suite that cannot be read.
    """
    jobs: dict[str, list[Cell]] = {}
    by_status: dict[str, set[str]] = {"ok": set(), "failed": set(), "void": set()}
    problems: list[str] = []
    for cell in suite.cells:
        jobs.setdefault(cell.weights_key, []).append(cell)
        path = record_path(results, cell.id)
        if path.exists():
            try:
                by_status[read_record(path).status].add(cell.id)
            except InputError as error:
                problems += error.messages
    if problems:
        raise InputError(problems)
    return Plan(
        suite=suite,
        jobs=tuple(Job(key, cells[0].task, tuple(cells)) for key, cells in jobs.items()),
        done=frozenset(by_status["ok"]),
        failed=frozenset(by_status["failed"]),
        void=frozenset(by_status["void"]),
    )


def require_writable(results: Path) -> None:
    """Make the results folder, and raise `InputError` unless records can be written there."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{results}: results cannot be written there ({reason}); give another folder: --out DIR"
        ) from error
