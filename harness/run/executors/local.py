"""Jobs one after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records import Record
from harness.run.context import Context
from harness.run.jobs import run_job
from harness.spec.plan import Job


def execute(jobs: Sequence[Job], context: Context) -> Iterator[Record]:
    """Records as their cells end."""
    for job in jobs:
        yield from run_job(job, context)
