"""Runs a job of either kind and writes its records; where it raises, the records say that its cells failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from epsbench.harness.errors import FAILURES, InputError
from epsbench.harness.files import NO_ROOM, cannot_write, require_in_place
from epsbench.harness.isolation import global_state_kept
from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record, write_record
from epsbench.harness.run.context import Context
from epsbench.harness.run.failure import failed
from epsbench.harness.run.machine.environment import arithmetic, arithmetic_flags
from epsbench.harness.run.machine.memory import keep_freed, release

Runner = Callable[[Any, Context], Iterator[Record]]


def _runner(task: str) -> Runner:
    """What runs jobs of a task. The other task's code is not imported: it takes a tenth of a second."""
    if task == "generation":
        from epsbench.harness.run.generative.job import run_generation_job

        return run_generation_job
    from epsbench.harness.run.robustness.job import run_robustness_job

    return run_robustness_job


def run_job(job: Job, context: Context) -> Iterator[Record]:
    """Run a job, writing each cell's record the moment the cell ends, before it is yielded.

    Raises `InputError` for what would fail every further cell as well: no room to write, damaged weights.
    """
    pending = {cell.id: cell for cell in job.cells}
    keep_freed(context.device)
    with global_state_kept(), arithmetic(context.precision(job.cells[0].precision)):
        context = replace(context, environment=context.environment | arithmetic_flags(context.device))
        require_in_place(context.results)
        for record in _guarded(job, context, pending):
            # One missing ε of a curve brings back the others too. If they fail now, their earlier records stay.
            if record.status != "failed" or not _is_measured(record.id, context):
                write_record(context.results, record)
                context.records.add(record)
            del pending[record.id]
            yield record


def _is_measured(identity: str, context: Context) -> bool:
    entry = context.records.entry(identity)
    return entry is not None and entry.status == "ok"


def _guarded(job: Job, context: Context, pending: dict[str, Any]) -> Iterator[Record]:
    started = context.clock()
    try:
        yield from _runner(job.task)(job, context)
    except InputError:  # the user must correct something; every further job would need it too
        raise
    # Training runs the user's models and defenses, which may raise anything, or even try to exit.
    except FAILURES as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise cannot_write(Path(error.filename or context.results), error) from error
        for cell in list(pending.values()):
            yield failed(cell, error, context, started)
    release()
