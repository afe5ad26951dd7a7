"""Finds everything that can be wrong before the first training step, and reports all of it at once."""

from __future__ import annotations

from collections.abc import Sequence

from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import GenerationCell, RobustnessCell
from epsbench.harness.plan.plan import Job
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.quality import images_of
from epsbench.harness.run.training.trained import build
from epsbench.harness.run.training.trial import Use, refusal


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
    recipe = dict(cell.training)
    use = Use(cell.seed, recipe["batch_size"], trains=recipe["epochs"] > 0)
    return refusal(cell.model.label(), lambda: build(cell, data, context), data, use)
