"""Finds everything that can be wrong before the first training step, and reports all of it at once."""

from __future__ import annotations

from collections.abc import Sequence

from epsbench.harness.errors import InputError, first_line
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.cell import GenerationCell, RobustnessCell
from epsbench.harness.plan.plan import Job
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.quality import images_of
from epsbench.harness.run.training.trained import build
from epsbench.harness.run.trial import problem_of


def preflight(jobs: Sequence[Job], context: Context) -> None:
    """Read every data set and build every classifier once, those of `source` models too.

    Raises one `InputError` with all that is wrong.
    """
    problems: list[str] = []
    seen: set[object] = set()
    for job in jobs:
        cell = job.cells[0]
        try:
            data = context.data(cell.data, cell.limit)
            if isinstance(cell, RobustnessCell) and cell.start:
                context.data(cell.start.data, cell.limit)
        except InputError as error:
            problems.extend(message for message in error.messages if message not in problems)
            continue
        if no_training := _no_training_split(job, data):
            problems += [no_training] if no_training not in problems else []
            continue
        if not isinstance(cell, RobustnessCell):
            problems += _too_few_images(job, data)
            continue
        sources = (each.source for each in job.cells if isinstance(each, RobustnessCell) and each.source)
        for trained in (cell, *sources):
            if (trained.model, trained.data) not in seen:
                seen.add((trained.model, trained.data))
                problem = _problem(trained, data, context)
                problems += [problem] if problem else []
    if problems:
        raise InputError(problems)


def _no_training_split(job: Job, data: Data) -> str | None:
    """Why a job's model cannot be trained on the data; None where it can, or needs no training."""
    cell = job.cells[0]
    trains = dict(cell.training)["epochs"] or (isinstance(cell, RobustnessCell) and cell.start)
    if len(data.train) or not trains:
        return None
    reason = dict(data.description.missing).get("train", "")
    return (
        f"model {cell.model.label()!r} has to be trained, and data {data.description.name!r} has no training split"
        f"{f' ({reason})' if reason else ''}; add one, bring trained weights, or say epochs = 0 to measure it untrained"
    )


def _too_few_images(job: Job, data: Data) -> list[str]:
    """Why the data is too small for the measures of a job's generative cells; empty where it suffices."""
    problems: list[str] = []
    for cell in job.cells:
        try:
            if isinstance(cell, GenerationCell):
                images_of(data, dict(cell.evaluation))
        except InputError as error:
            problems.extend(error.messages)
    return problems


def _problem(cell: RobustnessCell, data: Data, context: Context) -> str | None:
    """What is wrong with a cell's classifier before it is trained; None where nothing is."""
    model = f"model {cell.model.label()!r}"
    try:
        with isolated(cell.seed):
            network = build(cell, data, context)
            problem = problem_of(network, cell, data)
    # The model is the user's code: it may raise anything, or even try to exit.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        reason = first_line(error) if str(error) else type(error).__name__
        return f"{model} cannot be built for {cell.data}: {reason}"
    return f"{model} cannot be used on {cell.data}: {problem}" if problem else None
