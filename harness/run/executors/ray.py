"""Jobs side by side on Ray: on this machine, or on the cluster that ``RAY_ADDRESS`` names.

A job is one remote task, with one GPU where the run's device is one, else one core. The workers write records and
weights themselves, so the folders must be the same on every node.
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
from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record, read_record, record_path, write_record
from epsbench.harness.run.context import Context
from epsbench.harness.run.failure import failed
from epsbench.harness.run.jobs import run_job
from epsbench.harness.run.machine.environment import describe
from epsbench.harness.run.progress import Silent


def execute(jobs: Sequence[Job], context: Context) -> Iterator[Record]:
    """Records as their jobs end. A worker that dies fails the cells it leaves without a record, and no others.

    Raises `InputError` where Ray is not installed, has no GPU for a run that asks for one, or where a job does.
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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a benchmark does not phone home
    address = os.environ.get("RAY_ADDRESS", "local")
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise InputError(
            f"--executor ray: the Ray cluster at RAY_ADDRESS={address} does not answer ({error}); "
            "correct the address, or unset it to run on this machine"
        ) from error
    # Ray takes SIGTERM for itself; here it means what it means to every run: stop, keep what is finished.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)


def _run(jobs: Sequence[Job], context: Context, ray: ModuleType) -> Iterator[Record]:
    gpu = context.device.type == "cuda"
    if gpu and ray.cluster_resources().get("GPU", 0) < 1:
        raise InputError("--executor ray: no node of the Ray cluster has a GPU; add one, or give --device cpu")
    # A job that kills its worker would kill the next one too.
    task = ray.remote(num_cpus=0 if gpu else 1, num_gpus=1 if gpu else 0, max_retries=0)(_work)
    sent = ray.put(_portable(context))
    before = {job.key: _recorded(job, context) for job in jobs}
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
                yield from _salvaged(job, before[job.key], error, context, started)
            progress.advance()


def _work(job: Job, context: Context) -> list[Record]:
    """On a worker: the whole job, its records written as their cells end."""
    # The environment is the worker's: its node need not be the driver's.
    return list(run_job(job, replace(context, environment=describe(context.device))))


def _portable(context: Context) -> Context:
    """The context as it travels: absolute paths, no progress bar, no data, and whichever GPU Ray lends."""
    root = context.data_root or os.environ.get("EPSBENCH_DATA")
    return replace(
        context,
        results=context.results.resolve(),
        weights=context.weights.resolve(),
        base=context.base.resolve(),
        data_root=Path(root).expanduser().resolve() if root else None,
        device=torch.device(context.device.type),
        progress=Silent(),
        _data={},
    )


def _recorded(job: Job, context: Context) -> dict[str, Record]:
    """The records there are of a job's cells, by id."""
    paths = {cell.id: record_path(context.results, cell.id) for cell in job.cells}
    return {identity: read_record(path) for identity, path in paths.items() if path.is_file()}


def _salvaged(
    job: Job, before: dict[str, Record], error: Exception, context: Context, started: str
) -> Iterator[Record]:
    """What a lost worker leaves: the records it wrote, and a failure for every other cell of its job."""
    written = _recorded(job, context)
    for cell in job.cells:
        record = written.get(cell.id)
        # An earlier run's failure is no news of this one; its measurement stands, whatever became of the worker.
        if record is None or (record.status == "failed" and record == before.get(cell.id)):
            record = failed(cell, error, context, started)
            write_record(context.results, record)
        yield record
