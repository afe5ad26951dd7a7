"""A job, whichever part of the suite it comes from: its records, and a record of failure when it raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from harness.errors import InputError
from harness.records import Record, write_record
from harness.run.context import Context
from harness.run.failure import failed
from harness.run.generation import run_generation_job
from harness.run.robustness import run_robustness_job
from harness.spec.plan import Job

RUNNERS: dict[str, Callable[[Any, Context], Iterator[Record]]] = {
    "robustness": run_robustness_job,
    "generation": run_generation_job,
}


def run_job(job: Job, context: Context) -> Iterator[Record]:
    """Run a job, writing each cell's record the moment the cell ends, before it is yielded."""
    pending = {cell.id: cell for cell in job.cells}
    for record in _guarded(job, context, pending):
        write_record(context.results, record)
        del pending[record.id]
        yield record


def _guarded(job: Job, context: Context, pending: dict[str, Any]) -> Iterator[Record]:
    started = context.clock()
    try:
        yield from RUNNERS[job.task](job, context)
    except InputError:  # the user's to mend, and worth stopping for
        raise
    # Training runs the user's models and defenses, which may raise anything, or even try to exit.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        for cell in list(pending.values()):
            yield failed(cell, error, context, started)
