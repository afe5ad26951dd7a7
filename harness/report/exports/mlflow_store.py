"""Records as runs of MLflow, in a local store or on a tracking server."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.report.exports.runs import TrackedRun, runs, safe_keys
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import plural

EXPERIMENT = "epsbench"
LONGEST_VALUE = 6000
MOST_AT_ONCE = 100  # of parameters in one request; of metrics 1,000
STATUS = {"ok": "FINISHED", "failed": "FAILED", "void": "FAILED"}


def write(results: Results, out: Path) -> str:
    """Write every record that is not there yet as a run of the experiment "epsbench".

    The store is the folder ``out``, or the server that the environment variable ``MLFLOW_TRACKING_URI`` names.
    """
    # MLflow asks for a database where it can; a folder needs no server and no more packages.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = os.environ.get("MLFLOW_TRACKING_URI") or out.resolve().as_uri()
    try:
        client = MlflowClient(tracking_uri=uri)
        existing = client.get_experiment_by_name(EXPERIMENT)
        experiment = existing.experiment_id if existing else client.create_experiment(EXPERIMENT)
        there = _ids(client, experiment)
        fresh = [run for run in runs(results) if run.id not in there]
        for run in fresh:
            _log(client, experiment, run)
    except MlflowException as error:
        raise InputError(f"mlflow: {uri}: {error}; correct --to or MLFLOW_TRACKING_URI") from error
    again = f", {len(there)} were there" if there else ""
    return f"{uri}: {plural(len(fresh), 'run')} in the experiment {EXPERIMENT}{again}"


def _ids(client: Any, experiment: str) -> set[str]:
    """The ids of the cells that the experiment has a finished run of."""
    ids: set[str] = set()
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        ids |= {run.data.tags.get("epsbench.id", "") for run in page if run.info.status != "RUNNING"}
        token = page.token
        if not token:
            return ids - {""}


def _log(client: Any, experiment: str, run: TrackedRun) -> None:
    from mlflow.entities import Metric, Param, RunTag

    start, end = int(1000 * run.started), int(1000 * run.finished)
    identity = client.create_run(experiment, start_time=start, run_name=run.name[:LONGEST_VALUE]).info.run_id
    keys = safe_keys(run.config)
    params = [Param(keys[key], str(value)[:LONGEST_VALUE]) for key, value in run.config.items()]
    names = safe_keys([*run.metrics, *run.curves])
    metrics = [Metric(names[name], value, end, 0) for name, value in run.metrics.items()]
    metrics += [
        Metric(names[name], value, start, epoch)
        for name, values in run.curves.items()
        for epoch, value in enumerate(values, 1)
    ]
    tags = [RunTag(key, value[:LONGEST_VALUE]) for key, value in run.tags.items()]
    client.log_batch(identity, tags=tags)
    for some in _some(params, MOST_AT_ONCE):
        client.log_batch(identity, params=some)
    for some in _some(metrics, 5 * MOST_AT_ONCE):
        client.log_batch(identity, metrics=some)
    client.set_terminated(identity, STATUS[run.status], end)


def _some(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    return [items[start : start + most] for start in range(0, len(items), most)]
