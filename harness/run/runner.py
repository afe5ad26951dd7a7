"""Runs the cells of a suite that have no record yet."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console

from epsbench.harness.durations import shown
from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.options import INTERRUPTED, TIME_IS_UP, Options
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.estimate import Estimator
from epsbench.harness.plan.names.places import folders_of
from epsbench.harness.plan.order import cheapest_first, costs_of
from epsbench.harness.plan.plan import Job, Plan, plan, require_writable
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import Record, is_there, record_path
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.environment import choose_device, describe
from epsbench.harness.run.machine.lock import only_run
from epsbench.harness.run.machine.threads import threads_kept
from epsbench.harness.run.preflight import preflight
from epsbench.harness.run.progress import Lines, Silent, Terminal

EXECUTORS = {"local": "epsbench.harness.run.executors.local", "ray": "epsbench.harness.run.executors.ray"}
# A finished cell's line shows the first of these metrics that its record has.
SHOWN = {
    "robust_accuracy": "{:.1%}",
    "test_bpd": "{:.3f} bpd",
    "distortion_bpd": "{:.3f} bpd, distortion",
}


def run_suite(suite: Suite, results: Path, options: Options, records: RecordIndex | None = None) -> int:
    """Measure every cell without a record.

    Returns 0: all is measured, 1: a cell failed or is void, 3: the time limit ended the run, 130: Ctrl-C.

    ``records`` is what was read of the results folder before. Raises `InputError` before any training when the data,
    the device or the results folder cannot be used, or another run is writing to that folder; later, when results
    can no longer be written, or the folder is no longer there.
    """
    require_writable(results)
    # The user's code may change the working folder; where results go does not depend on it.
    place = results.absolute()
    # It may print, too; standard output is for the report.
    with only_run(place), redirect_stdout(sys.stderr), threads_kept():
        index = records.moved(place) if records else None
        return _run(plan(suite, place, index, options.keep_images), results, options)


class TimeIsUpError(KeyboardInterrupt):
    """The time limit of a run has passed: it stops as it does at Ctrl-C."""


def _run(work: Plan, results: Path, options: Options) -> int:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    suite, context = work.suite, _context(work, results.absolute(), options)
    jobs: Sequence[Job] = work.pending_jobs
    estimator = Estimator(work, context.weights)
    if options.time_limit is not None:
        jobs = cheapest_first(work, jobs, estimator)
    execute = _executor(options.executor)
    console = Console(stderr=True)
    try:
        with _terminate_as_interrupt(), _stopped_after(options.time_limit):
            bad = _drive(_checked(jobs, context, execute), work, context, estimator, console, options)
        _require_records(jobs, context)
    except KeyboardInterrupt as stop:
        left = plan(suite, context.results, work.records, options.keep_images).pending
        many = f"{len(suite.cells) - len(left)} of {len(suite.cells)} cells are recorded"
        kept = f" in {results}" if not options.temporary else ", and nothing is kept"
        remedy = "the same command goes on from there" if not options.temporary else "give out= to go on from there"
        timed = isinstance(stop, TimeIsUpError) and options.time_limit is not None
        why = f"time is up after {shown(options.time_limit or 0)}" if timed else "stopped"
        missing = f"; missing: {_missing(left)}" if timed and left else ""
        console.print(f"{why}: {many}{kept}{missing}; {remedy}", highlight=False, markup=False, soft_wrap=True)
        return TIME_IS_UP if timed else INTERRUPTED
    finally:
        work.records.save()
    return 1 if bad else 0


def _checked(
    jobs: Sequence[Job], context: Context, execute: Callable[[Sequence[Job], Context], Iterator[Record]]
) -> Iterator[Record]:
    """The records of the jobs, after everything that can be wrong with them was looked at."""
    with context.progress.task("trying models and attacks", None):
        preflight(jobs, context)
    yield from execute(jobs, context)


def _missing(cells: Sequence[Cell], most: int = 5) -> str:
    """What is not measured, by model and attack: ``"3 of smallcnn trades · pgd(steps=40) linf"``."""
    counts = Counter(
        f"{cell.trained_label()} · {cell.attack.label()} {cell.norm}"
        if isinstance(cell, RobustnessCell)
        else f"{cell.data} {cell.model.label()}"
        for cell in cells
    )
    parts = [f"{count} of {label}" for label, count in list(counts.items())[:most]]
    return ", ".join(parts + ([f"and {sum(list(counts.values())[most:])} others"] if len(counts) > most else []))


@contextmanager
def _stopped_after(seconds: float | None) -> Iterator[None]:
    """Inside, `TimeIsUpError` is raised after so many seconds. Outside the main thread nothing can interrupt a cell."""
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeIsUpError

    try:
        before = signal.signal(signal.SIGALRM, stop)
    except ValueError:  # not the main thread: `_drive` looks at the clock after each cell
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _require_records(jobs: Sequence[Job], context: Context) -> None:
    """Raise `InputError` if records that this run wrote are gone: somebody moved or deleted them meanwhile."""
    cells = [cell for job in jobs for cell in job.cells]
    gone = sum(not is_there(record_path(context.results, cell.id)) for cell in cells)
    if gone:
        raise InputError(
            f"{context.results}: {gone} of the {len(cells)} records that this run wrote are not there any more; put "
            "them back, or run the same command again, which measures only what is missing"
        )


def _drive(
    records: Iterator[Record], work: Plan, context: Context, estimator: Estimator, console: Console, options: Options
) -> int:
    """Take the records as they come, with bars on a terminal, else lines. Returns how many are failed or void."""
    bad = 0
    records = _until(records, options.time_limit)
    if options.quiet:
        return sum(record.status != "ok" for record in records)
    labels = {cell.id: cell.label() for job in work.jobs for cell in job.cells}
    with _reporter(work, estimator, console) as reporter:
        context.progress = reporter
        for record in records:
            bad += record.status != "ok"
            reporter.finished(record.id, _line(record, labels[record.id]))
    return bad


def _reporter(work: Plan, estimator: Estimator, console: Console) -> Terminal | Lines:
    costs = costs_of(work, work.pending_jobs, estimator)
    done = len(work.suite.cells) - len(costs)
    if console.is_terminal:
        return Terminal(console, costs, done)
    return Lines(lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True), costs, done)


def _until(records: Iterator[Record], seconds: float | None) -> Iterator[Record]:
    """The records, and `TimeIsUpError` after one that comes later than the limit where more are to come."""
    began = time.monotonic()
    for record in records:
        yield record
        if seconds is not None and time.monotonic() - began > seconds:
            raise TimeIsUpError


def _line(record: Record, label: str) -> str:
    if record.status != "ok":
        return f"{record.status:>6}  {label}: {next(iter(record.why.splitlines()), '')}"
    name = next(name for name in SHOWN if name in record.metrics)
    return f"{SHOWN[name].format(record.metrics[name].value):>10}  {label}"


def _context(work: Plan, results: Path, options: Options) -> Context:
    suite, device = work.suite, choose_device(options.device)
    return Context(
        results=results,
        weights=options.weights.absolute() if options.weights else results / "weights",
        device=device,
        suite=suite.name,
        base=suite.base,
        description=suite.description,
        data_root=options.data_root.absolute() if options.data_root else None,
        batch_size=options.batch_size,
        profile=options.profile,
        compile=options.compile,
        keep_images=options.keep_images,
        remember=options.remember,
        threads=options.threads,
        devices=options.devices or 0,
        environment=describe(device, *folders_of(suite.cells, suite.base)),
        progress=Silent(),
        records=work.records,
    )


def _executor(name: str) -> Callable[[Sequence[Job], Context], Iterator[Record]]:
    if name not in EXECUTORS:
        raise InputError(f"--executor: unknown executor {name!r}{did_you_mean(name, EXECUTORS)}")
    execute: Callable[[Sequence[Job], Context], Iterator[Record]] = importlib.import_module(EXECUTORS[name]).execute
    return execute


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM, and SIGHUP from a terminal that closes, stop a run as Ctrl-C does: what is finished is kept."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                before[number] = signal.signal(number, interrupt)
    except ValueError:  # not the main thread, where signals cannot be taken
        yield
        return
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
