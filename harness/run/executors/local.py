"""Runs jobs one after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record
from epsbench.harness.run.context import Context
from epsbench.harness.run.jobs import run_job


def execute(jobs: Sequence[Job], context: Context) -> Iterator[Record]:
    """Records as their cells end."""
    for job in jobs:
        yield from run_job(job, context)
