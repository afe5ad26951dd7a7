"""Records as runs of Weights & Biases, written offline; ``wandb sync`` uploads them."""

from __future__ import annotations

import os
from pathlib import Path

from epsbench.harness.report.exports.runs import TrackedRun, runs
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import plural

PROJECT = "epsbench"
LONGEST_NAME = 128


def write(results: Results, out: Path) -> str:
    """Write ``out/wandb/offline-run-…``, one for every record. Nothing is sent.

    A run has the id of its cell, so a later upload of the same cell replaces the earlier one. ``WANDB_PROJECT`` names
    another project.
    """
    out.mkdir(parents=True, exist_ok=True)
    tracked = runs(results)
    for run in tracked:
        _log(run, out)
    return (
        f"{out / 'wandb'}: {plural(len(tracked), 'offline run')}; `wandb sync {out}/wandb/offline-run-*` uploads them"
    )


def _log(run: TrackedRun, out: Path) -> None:
    import wandb

    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True,
        disable_job_creation=True,
    )  # fmt: skip
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), dir=str(out), mode="offline", id=run.id,
        name=run.name[:LONGEST_NAME], config={**run.config, **run.tags, "cell": run.name}, settings=settings,
        tags=[run.status],
    ) as logged:  # fmt: skip
        epochs = max(map(len, run.curves.values()), default=0)
        for epoch in range(epochs):
            at = {name: values[epoch] for name, values in run.curves.items() if epoch < len(values)}
            logged.log(at, step=epoch + 1)
        logged.summary.update(dict(run.metrics))
