"""Runs jobs in parallel on Ray: on this machine, or on the cluster that ``RAY_ADDRESS`` names.

A job is one remote task. It takes one GPU where the run's device is a GPU, else one core; where there are more of them
than jobs, others help with its attacks. Machines need not see the run's folders: data and weights go through Ray's
object store, and records come back with their files. Code of the user's own has to be on every machine, at one path.
"""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from epsbench.harness.errors import InputError
from epsbench.harness.files import keep
from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record, find_record, write_record
from epsbench.harness.run.context import Context
from epsbench.harness.run.executors.ray_files import files_of
from epsbench.harness.run.executors.ray_progress import Mirror, start_board
from epsbench.harness.run.executors.ray_worker import Delivered, Order, files_of_weights, work
from epsbench.harness.run.failure import failed
from epsbench.harness.run.progress import Silent

LOOK = 1.0  # seconds between two looks at what the workers are at
TRIES = 2  # a job that lost its worker is tried once more: a machine may fail, or the job may be what kills workers


def execute(jobs: Sequence[Job], context: Context) -> Iterator[Record]:
    """Records as their cells end. A job whose worker dies is tried once more; then its missing cells are failed.

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
    token = context.results / f".seen-{uuid.uuid4().hex}"
    try:
        token.touch()
        yield from _run(jobs, context, token.name, ray)
    finally:
        token.unlink(missing_ok=True)
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


def _run(jobs: Sequence[Job], context: Context, token: str, ray: ModuleType) -> Iterator[Record]:
    kind = "GPU" if context.device.type == "cuda" else "CPU"
    slots = int(ray.cluster_resources().get(kind, 0))
    if kind == "GPU" and slots < 1:
        raise InputError("--executor ray: no node of the Ray cluster has a GPU; add one, or give --device cpu")
    resources = {"num_cpus": 0, "num_gpus": 1} if kind == "GPU" else {"num_cpus": 1, "num_gpus": 0}
    task = ray.remote(**resources, max_retries=0, num_returns="streaming")(work)
    devices = context.devices or max(1, slots // max(1, len(jobs)))
    on_cpu = {key: data.to(torch.device("cpu")) for key, data in context._data.items()}
    several = len(ray.nodes()) > 1
    files = files_of(on_cpu.values()) if several else {}
    node, board = ray.get_runtime_context().get_node_id(), start_board(ray)
    order = ray.put(Order(_portable(context), token, [ray.put(on_cpu)], several, board, files, node))
    _look_up(jobs, context)
    started = context.clock()
    running: dict[Any, tuple[Job, int, str]] = {}

    def begin(job: Job, tried: int) -> None:
        weights = files_of_weights(context.weights, job.cells) if several else {}
        name = uuid.uuid4().hex
        running[task.remote(job, order, weights, devices, name)] = job, tried + 1, name

    for job in jobs:
        begin(job, 0)
    recorded: set[str] = set()
    with context.progress.task("jobs on Ray", len(jobs)) as progress, Mirror(ray, context.progress, board) as mirror:
        while running:
            some, _ = ray.wait(list(running), num_returns=1, timeout=LOOK)
            mirror.show()
            if not some:
                continue
            (ready,) = some
            job, tried, name = running[ready]
            try:
                delivered = ray.get(next(ready))
            except StopIteration:
                del running[ready]
                mirror.forget(name)
                progress.advance()
            except ray.exceptions.RayError as error:
                del running[ready]
                mirror.forget(name)
                cause = getattr(error, "cause", None)
                if isinstance(cause, InputError):
                    raise InputError(cause.messages) from error
                missing = job.only({cell.id for cell in job.cells} - recorded)
                if isinstance(error, ray.exceptions.RayTaskError) or tried == TRIES:
                    yield from _salvaged(missing, error, context, started)
                    progress.advance()
                    continue
                for record in _written(missing, context):
                    recorded.add(record.id)
                    yield record
                if (left := job.left({cell.id for cell in job.cells} - recorded)).cells:
                    begin(left, tried)
            else:
                recorded.add(delivered.record.id)
                yield _received(delivered, context)


def _received(delivered: Delivered, context: Context) -> Record:
    """The record, after its files are where they belong."""
    for name, content in delivered.files.items():
        folder, _, path = name.partition("/")
        keep({"results": context.results, "weights": context.weights}[folder] / path, content)
    context.records.add(delivered.record)
    return delivered.record


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
        reserve=None,
        records=context.records.moved(context.results.resolve()),
        _data={},
    )


def _look_up(jobs: Sequence[Job], context: Context) -> None:
    """Remember which records there are before the workers start."""
    for job in jobs:
        for cell in job.cells:
            context.records.entry(cell.id)


def _written(job: Job, context: Context) -> Iterator[Record]:
    """The records of a job that its worker wrote before it died, and could not send any more."""
    for cell in job.cells:
        record = find_record(context.results, cell.id)
        if record is not None and record.status != "failed" and not context.records.is_unchanged(cell.id):
            context.records.add(record)
            yield record


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
