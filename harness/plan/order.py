"""The order of a run that has a time limit: the cheapest cells first. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.estimate import Estimator, images_of_training
from epsbench.harness.plan.plan import Job, Plan, examples

# Where no record says how long something takes, only their order counts: seconds of a gradient and of a trained image.
_GRADIENT, _TRAINED_IMAGE, _GENERATIVE_IMAGE = 1e-4, 3e-4, 1e-2


def cheapest_first(plan: Plan, jobs: Sequence[Job], estimator: Estimator) -> list[Job]:
    """The same cells with the cheapest first. A job whose attacks differ tenfold in cost is split.

    So cheap attacks on all models come before a dear one on the first model. The model is trained once, by the first.
    """
    parts: list[tuple[float, int, Job]] = []
    for job in jobs:
        training = _training(job, estimator)
        groups: dict[int, list[tuple[float, int]]] = {}
        costs = [_cells(plan, stream.cells, estimator) for stream in job.streams]
        for number, cost in enumerate(costs):
            groups.setdefault(math.floor(math.log10(max(cost, 1e-3))), []).append((cost, number))
        for place, (_, group) in enumerate(sorted(groups.items())):
            streams = tuple(job.streams[number] for _, number in sorted(group))
            cells = tuple(cell for stream in streams for cell in stream.cells)
            cost = sum(cost for cost, _ in group) + (0.0 if place else training)
            parts.append((cost / len(cells), len(parts), replace(job, cells=cells, streams=streams)))
        if not job.streams:
            cost = training + _cells(plan, job.cells, estimator)
            parts.append((cost / len(job.cells), len(parts), job))
    return [job for _, _, job in sorted(parts, key=lambda part: part[:2])]


def _training(job: Job, estimator: Estimator) -> float:
    """The seconds of all trainings that a job still needs."""
    total = 0.0
    for cell in estimator.trained_for(job.cells):
        known = estimator.training(cell)
        total += _TRAINED_IMAGE * images_of_training(cell) if known.trainings_unknown else known.training
    return total


def _cells(plan: Plan, cells: Sequence[Cell], estimator: Estimator) -> float:
    total = 0.0
    for cell in cells:
        known = estimator.cell(cell)
        if not known.cells_unknown:
            total += known.measuring
        elif cell.task == "generation":
            total += _GENERATIVE_IMAGE * examples(cell)
        else:
            most = plan.predicted_gradients([cell])
            count = most.at_most + most.about or (examples(cell) * (1000 if most.unknown else 1))
            total += _GRADIENT * count
    return total


def costs_of(plan: Plan, jobs: Sequence[Job], estimator: Estimator) -> dict[str, float]:
    """What each cell of the jobs costs relative to the others, its part of the training included: id → seconds."""
    costs: dict[str, float] = {}
    for job in jobs:
        training = _training(job, estimator) / len(job.cells)
        costs |= {cell.id: training + _cells(plan, [cell], estimator) for cell in job.cells}
    return costs
