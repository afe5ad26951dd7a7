"""Runs jobs in parallel on Ray: on this machine, or on the cluster that ``RAY_ADDRESS`` names.

A job is one remote task. It takes one GPU where the run's device is a GPU, else one core. The workers write records and
weights themselves, so all nodes must see the same folders.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from epsbench.harness.errors import InputError
from epsbench.harness.plan.names.places import folders_of
from epsbench.harness.plan.plan import Job
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.records import Record, find_record, write_record
from epsbench.harness.run.context import Context
from epsbench.harness.run.failure import failed
from epsbench.harness.run.jobs import run_job
from epsbench.harness.run.machine.environment import describe
from epsbench.harness.run.progress import Silent


def execute(jobs: Sequence[Job], context: Context) -> Iterator[Record]:
    """Records as their jobs end. If a worker dies, the cells of its job that have no record yet are failed.

    Raises `InputError` where Ray is not installed or has no GPU for a run that needs one, and where a job raises it.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"--executor ray: Ray cannot be imported ({error}); install it: pip install 'epsbench[ray]'"
        ) from error
    return _execute(jobs, context, ray)


def _execute(jobs: Sequence[Job], context: Context, ray: ModuleType) -> Iterator[Record]:
    ours = not ray.is_initialized()
    if ours:
        _start(ray)
    try:
        yield from _run(jobs, context, ray)
    finally:
        if ours:
            ray.shutdown()


def _start(ray: ModuleType) -> None:
    """Join the cluster of ``RAY_ADDRESS``, or start Ray here. Raises `InputError` where the cluster does not answer."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a benchmark sends no usage statistics
    address = os.environ.get("RAY_ADDRESS", "local")
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise InputError(
            f"--executor ray: the Ray cluster at RAY_ADDRESS={address} does not answer ({error}); "
            "correct the address, or unset it to run on this machine"
        ) from error
    # Ray installs its own handler of SIGTERM. In every run SIGTERM means: stop, and keep what is finished.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)


def _run(jobs: Sequence[Job], context: Context, ray: ModuleType) -> Iterator[Record]:
    gpu = context.device.type == "cuda"
    if gpu and ray.cluster_resources().get("GPU", 0) < 1:
        raise InputError("--executor ray: no node of the Ray cluster has a GPU; add one, or give --device cpu")
    # No retry: a job that kills its worker would kill the next one too.
    task = ray.remote(num_cpus=0 if gpu else 1, num_gpus=1 if gpu else 0, max_retries=0)(_work)
    sent = ray.put(_portable(context))
    _look_up(jobs, context)
    started = context.clock()
    running = {task.remote(job, sent): job for job in jobs}
    with context.progress.task("jobs on Ray", len(jobs)) as progress:
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(ready)
            try:
                yield from ray.get(ready)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, InputError):
                    raise InputError(cause.messages) from error
                yield from _salvaged(job, error, context, started)
            progress.advance()


def _work(job: Job, context: Context) -> list[Record]:
    """On a worker: run the job and write each record as its cell ends."""
    # A worker runs many jobs: it keeps what it has read of the folder, and adds what other workers have written since.
    records = _WORKER_RECORDS.setdefault(context.results, context.records)
    records.list_again()
    # The worker describes its own environment: its node may differ from the driver's.
    environment = describe(context.device, *folders_of(job.cells, context.base))
    return list(run_job(job, replace(context, environment=environment, records=records)))


_WORKER_RECORDS: dict[Path, RecordIndex] = {}


def _portable(context: Context) -> Context:
    """The context to send to workers: absolute paths, no progress bar, no data, and the GPU that Ray assigns."""
    root = context.data_root or os.environ.get("EPSBENCH_DATA")
    return replace(
        context,
        results=context.results.resolve(),
        weights=context.weights.resolve(),
        base=context.base.resolve(),
        data_root=Path(root).expanduser().resolve() if root else None,
        device=torch.device(context.device.type),
        progress=Silent(),
        records=context.records.moved(context.results.resolve()),
        _data={},
    )


def _look_up(jobs: Sequence[Job], context: Context) -> None:
    """Remember which records there are before the workers start."""
    for job in jobs:
        for cell in job.cells:
            context.records.entry(cell.id)


def _salvaged(job: Job, error: Exception, context: Context, started: str) -> Iterator[Record]:
    """The records of a job whose worker died: those that it wrote, and a failure for each other cell."""
    for cell in job.cells:
        record = find_record(context.results, cell.id)
        # A failure that was recorded before this run is measured again. Earlier measurements stay as they are.
        if record is None or (record.status == "failed" and context.records.is_unchanged(cell.id)):
            record = failed(cell, error, context, started)
            write_record(context.results, record)
            context.records.add(record)
        yield record
