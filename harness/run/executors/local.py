"""Runs jobs one after the other, in this process; others may help with their attacks."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record
from epsbench.harness.run.context import Context
from epsbench.harness.run.executors.processes import helped
from epsbench.harness.run.jobs import run_job


def execute(jobs: Sequence[Job], context: Context) -> Iterator[Record]:
    """Records as their cells end.

    After each job memory is collected. What was there before, and what the first job has loaded, mostly torch's
    compiler, stays. Looking through it takes 0.2 s, ten times as long as a small model's training, so it is left out.
    """
    frozen = False
    gc.freeze()
    with helped(context) as shared:
        try:
            for job in jobs:
                yield from run_job(job, shared)
                if not frozen:
                    gc.freeze()
                    frozen = True
        finally:
            gc.unfreeze()
