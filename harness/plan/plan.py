"""From a suite to the work left: which cells share a trained model, which are recorded already, what it will cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from epsbench.attacks.base import Attack
from epsbench.harness.digest import digest
from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.names.attacks import check_attack
from epsbench.harness.plan.names.registry import make
from epsbench.harness.plan.prediction import Prediction, most_gradients
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.plan.recorded_entry import Entry
from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import is_there, kept_images


@dataclass(frozen=True)
class Stream:
    """Cells of one model that are attacked together: one attack at several ε. The attack is built once, by the plan.

    A stream travels to another process as its cells, and its attack is built again there: a class from a user's file
    cannot be imported by its name.
    """

    cells: tuple[RobustnessCell, ...]
    """In the order of the suite."""

    base: Path
    """The folder against which names such as ``mine.py:Attack`` resolve."""

    attack: Attack = field(compare=False)
    """With its norm."""

    @classmethod
    def of(cls, cells: Iterable[RobustnessCell], base: Path) -> Stream:
        """The stream of these cells. Raises `InputError` where the attack refuses its parameters."""
        cells = tuple(cells)
        first = cells[0]
        attack = make("attack", first.attack, base, norm=first.norm)
        check_attack(attack, first.attack.name, describe(first.data).classes, str(first.data))
        if attack.goal == "smallest" and first.source:
            raise InputError(
                f"{first.attack.name}: looks for the smallest distance, which only the judged model has; leave out its "
                "source, or use another attack"
            )
        return cls(cells, base, attack)

    @property
    def ascending(self) -> list[RobustnessCell]:
        """The cells, ascending in ε."""
        return sorted(self.cells, key=lambda cell: cell.eps)

    @property
    def sources(self) -> tuple[RobustnessCell, ...]:
        """The models whose gradients the attack follows, where it is not the one that is attacked."""
        return self.cells[0].sources

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Stream.of, (self.cells, self.base.resolve())


@dataclass(frozen=True)
class Job:
    """The cells that share one trained model: the unit of scheduling."""

    key: str
    """The key of the trained weights."""

    task: str
    """"robustness" or "generation"."""

    cells: tuple[Cell, ...]
    """In the order of the suite."""

    streams: tuple[Stream, ...] = ()
    """The same cells by attack, where the task is robustness."""

    @classmethod
    def of(cls, cells: Iterable[Cell], base: Path) -> Job:
        """The job of cells with one key of weights. Raises `InputError` where an attack refuses its parameters."""
        cells = tuple(cells)
        streams: dict[object, list[RobustnessCell]] = {}
        for cell in cells:
            if isinstance(cell, RobustnessCell):
                streams.setdefault(cell.stream, []).append(cell)
        return cls(
            cells[0].weights_key, cells[0].task, cells, tuple(Stream.of(each, base) for each in streams.values())
        )

    def only(self, ids: Collection[str]) -> Job:
        """The job with the cells of these ids alone, and the same attacks."""
        cells = tuple(cell for cell in self.cells if cell.id in ids)
        kept = [(stream, tuple(cell for cell in stream.cells if cell.id in ids)) for stream in self.streams]
        streams = tuple(Stream(chosen, stream.base, stream.attack) for stream, chosen in kept if chosen)
        return Job(self.key, self.task, cells, streams)

    def left(self, pending: Collection[str]) -> Job:
        """The job with the cells of these ids alone. A curve whose ε depend on each other stays whole, or goes."""
        curves = [cell for cell in self.cells if isinstance(cell, RobustnessCell) and cell.curve_eps]
        incomplete = {cell.stream for cell in curves if cell.id in pending}
        return self.only({*pending, *(cell.id for cell in curves if cell.stream in incomplete)})


@dataclass(frozen=True)
class Plan:
    """A suite's jobs and what its results folder holds of them.

    The next run measures failed cells again. It leaves out void ones: the same cell would be void again.
    """

    suite: Suite

    jobs: tuple[Job, ...]
    """All jobs of the suite, finished ones too."""

    done: frozenset[str]
    """Ids of the cells with numbers."""

    failed: frozenset[str]
    """Ids of the cells that could not be measured."""

    void: frozenset[str]
    """Ids of the cells whose numbers mean nothing."""

    records: RecordIndex = field(compare=False)
    """The records as they were read. Hand it on, so that no record is read twice."""

    @property
    def pending(self) -> tuple[Cell, ...]:
        """The cells the next run computes, in the order of the jobs."""
        settled = self.done | self.void
        return tuple(cell for job in self.jobs for cell in job.cells if cell.id not in settled)

    @property
    def pending_jobs(self) -> tuple[Job, ...]:
        """The jobs with something to do, without their finished cells.

        A curve whose ε depend on each other is measured whole: where one ε is missing, all its ε run again.
        """
        pending = {cell.id for cell in self.pending}
        left = (job.left(pending) for job in self.jobs)
        return tuple(job for job in left if job.cells)

    def predicted_gradients(self, cells: Iterable[Cell]) -> Prediction:
        """The input gradients that the attacks of these cells will take.

        Where the same cell with another seed is measured, its count; else a bound: steps × attempts × test examples.
        """
        measured = self._measured
        return Prediction.total(
            Prediction.of(
                most_gradients(self._attacks[cell.id], describe(cell.data).classes, cell.randomness),
                examples(cell),
                measured.get(_but_for_seed(cell), ()) if measured else (),
            )
            for cell in cells
            if isinstance(cell, RobustnessCell)
        )

    @cached_property
    def _attacks(self) -> dict[str, Attack]:
        return {cell.id: stream.attack for job in self.jobs for stream in job.streams for cell in stream.cells}

    @cached_property
    def _measured(self) -> dict[str, list[int]]:
        """The gradients that measured cells took, by all of their settings but the seed."""
        measured: dict[str, list[int]] = {}
        for cell in self.suite.cells:
            entry = self.records.entry(cell.id) if cell.id in self.done else None
            counts = [entry.cost.get(key) for key in ("backwards", "shared_backwards")] if entry else [None]
            if isinstance(cell, RobustnessCell) and all(isinstance(count, int) for count in counts):
                measured.setdefault(_but_for_seed(cell), []).append(sum(count for count in counts if count))
        return measured


def _but_for_seed(cell: RobustnessCell) -> str:
    """A hash of a cell's settings and code; the same for cells that differ in their seed alone."""
    settings = {key: value for key, value in cell.canonical().items() if key != "seed"}
    return digest({"cell": settings, "code": [cell.code.get(kind) for kind in ("attack", "model", "defense")]})


def examples(cell: Cell) -> int:
    """How many test examples a cell is measured on."""
    limits = (cell.limit, cell.test_images if isinstance(cell, RobustnessCell) else None)
    return min((describe(cell.data).sizes[2], *(limit for limit in limits if limit is not None)))


def plan(suite: Suite, results: Path, records: RecordIndex | None = None, images: int = 0) -> Plan:
    """Group a suite's cells into jobs, build their attacks, and look up what is recorded.

    ``records`` is what was read of the results folder before: of those records only replaced ones are read again.
    A classifier's cell is only done if the adversarial images of the first ``images`` test images were kept. Raises one
    `InputError` that names every record of the suite that cannot be read, and every attack that refuses its parameters,
    or that says why the folder cannot be read.
    """
    records = records or RecordIndex(results)
    is_there(results / "cells")  # one message where the folder cannot be read, not one for each record
    cells: dict[str, list[Cell]] = {}
    by_status: dict[str, set[str]] = {"ok": set(), "failed": set(), "void": set()}
    problems: list[str] = []
    for cell in suite.cells:
        cells.setdefault(cell.weights_key, []).append(cell)
        try:
            entry = records.entry(cell.id)
            if entry and not (images and isinstance(cell, RobustnessCell) and not has_images(results, entry, images)):
                by_status[entry.status].add(cell.id)
        except InputError as error:
            problems += error.messages
    jobs: list[Job] = []
    for each in cells.values():
        try:
            jobs.append(Job.of(each, suite.base))
        except InputError as error:
            problems += error.messages
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    records.save()
    return Plan(
        suite=suite,
        jobs=tuple(jobs),
        done=frozenset(by_status["ok"]),
        failed=frozenset(by_status["failed"]),
        void=frozenset(by_status["void"]),
        records=records,
    )


def has_images(results: Path, entry: Entry, images: int) -> bool:
    """Whether the first ``images`` adversarial images of a record were kept; a failed cell has none to keep."""
    return entry.status == "failed" or kept_images(results, entry.id) >= images


def require_writable(results: Path) -> None:
    """Make the results folder, and raise `InputError` unless records can be written there."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{results}: results cannot be written there ({reason}); give another folder: --out DIR, or out= in Python"
        ) from error
