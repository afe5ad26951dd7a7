"""How close attacks come to the best of all on the same model, as AttackBench measures it (Cinà et al., 2025).

An attack's curve is the robust accuracy that it leaves, over the distance. The area under it lies between that of the
best of all attacks and that of an attack that finds nothing. An attack that looked for the smallest distance has a
distance for every image. One that was run at several ε is judged at these ε alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import mean
from typing import Any

import numpy as np

from epsbench.harness.records import Record, within
from epsbench.harness.report.results.cells import AttackKey, attack_key, finite, passes
from epsbench.harness.report.robustness.leaderboard import Board, Row

Grid = tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One attack on one trained model."""

    distances: np.ndarray
    """Of each test image the distance at which it is known to be fooled, (n,): 0 where it is misclassified without an
    attack, ∞ where it is not fooled. On a grid the smallest ε that fools it."""
    grid: Grid
    """The ε of an attack that was run for each ε, ascending; empty for one that looked for the smallest distance."""
    gradients: float
    """Gradients for an attacked image, over all ε."""
    passes: float
    """Forward passes without a gradient, for an attacked image, over all ε."""
    seconds: float
    """Seconds for an attacked image, over all ε."""


@dataclass(frozen=True)
class Local:
    """One attack on the models of one row of a leaderboard, one a seed."""

    optimality: float
    """Its local optimality in [0, 1], the mean over seeds."""
    runs: tuple[Run, ...]
    """What was measured, one a seed."""
    best: tuple[np.ndarray, ...]
    """The smallest distance of each image (n,) over all attacks, one a seed."""


@dataclass(frozen=True)
class Standing:
    """One attack on a leaderboard of attacks."""

    attack: AttackKey
    """The attack."""
    label: str
    """Its label."""
    local: Mapping[int, Local]
    """By the index of a row of the board, what it reached there."""

    @property
    def optimality(self) -> float:
        """Its global optimality: the mean of the local ones."""
        return mean(local.optimality for local in self.local.values())

    @property
    def grid(self) -> Grid:
        """As `Run.grid`; of runs that differ the longest."""
        return max((run.grid for run in self._runs), key=len)

    def cost(self, name: str) -> float:
        """The mean over models of ``gradients``, ``passes`` or ``seconds``."""
        return mean(getattr(run, name) for run in self._runs)

    @property
    def _runs(self) -> list[Run]:
        return [run for local in self.local.values() for run in local.runs]


def optimality(distances: np.ndarray, best: np.ndarray, grid: Grid = ()) -> float | None:
    """The share of what the best of all attacks gains over an attack that finds nothing, in [0, 1].

    ``(nothing − area) / (nothing − area of the best)``, with areas under the robust accuracy from 0 to the largest
    finite distance of the best; the same as ``1 − (area − best) / (nothing − best)`` in AttackBench's code. Its areas
    join the steps of a curve by straight lines; here they are exact: the mean of min(distance, largest). On a ``grid``
    of ε, where only the accuracy at each ε is known, they are joined from 0 on (the trapezoidal rule), up to the first
    ε at which the best leaves nothing. None where no attack fools an image, or the best fools all at one distance.
    """
    reached = best[np.isfinite(best)]
    largest = float(reached.max(initial=0.0))
    if grid:
        left = [_left(best, eps) for eps in grid]
        used = grid[: left.index(0.0) + 1] if 0.0 in left else grid
        nothing, area, least = (_under(each, used) for each in (np.where(best > 0, np.inf, 0.0), distances, best))
    else:
        nothing = float((best > 0).mean()) * largest
        area, least = (float(np.minimum(each, largest).mean()) for each in (distances, best))
    gain = nothing - least
    return (nothing - area) / gain if gain > 1e-12 else None


def _under(distances: np.ndarray, grid: Grid) -> float:
    """The area under the robust accuracy at 0 and each ε of the grid, by the trapezoidal rule."""
    heights = [float((distances > 0).mean()), *(_left(distances, eps) for eps in grid)]
    return float(np.trapezoid(heights, [0.0, *grid]))


def _left(distances: np.ndarray, eps: float) -> float:
    """The robust accuracy at ``eps``."""
    return float((~within(distances, eps)).mean())


def standings(board: Board) -> list[Standing]:
    """The attacks of a leaderboard, the one of the largest global optimality first; empty for fewer than two."""
    by_attack: dict[AttackKey, dict[int, Local]] = defaultdict(dict)
    for index, row in enumerate(board.rows):
        for attack, local in _row(row).items():
            by_attack[attack][index] = local
    made = [Standing(attack, board.labels[attack], local) for attack, local in by_attack.items()]
    return sorted(made, key=lambda each: (-each.optimality, each.cost("gradients"))) if len(made) > 1 else []


def _row(row: Row) -> dict[AttackKey, Local]:
    by_seed: dict[Any, dict[AttackKey, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for records in row.measured.values():
        for record in records:
            by_seed[record.cell["seed"]][attack_key(record.cell)].append(record)
    reached: dict[AttackKey, list[tuple[float, Run, np.ndarray]]] = defaultdict(list)
    for attacks in by_seed.values():
        if len({record.training.get("weights_sha256") for records in attacks.values() for record in records}) > 1:
            continue
        runs = {attack: run_of(records) for attack, records in attacks.items()}
        if len({len(run.distances) for run in runs.values()}) > 1 or len(runs) < 2:
            continue
        best = np.minimum.reduce([run.distances for run in runs.values()])
        for attack, run in runs.items():
            if (value := optimality(run.distances, best, run.grid)) is not None:
                reached[attack].append((value, run, best))
    return {
        attack: Local(mean(value for value, *_ in each), tuple(run for _, run, _ in each), tuple(b for *_, b in each))
        for attack, each in reached.items()
    }


def run_of(records: Sequence[Record]) -> Run:
    """What the records of one attack on one trained model say, at all its ε."""
    ascending = sorted(records, key=lambda record: Fraction(record.cell["eps"]))
    packed = next((record.distances for record in ascending if record.distances is not None), None)
    if packed is not None:
        # One run answered all ε, and each record states its whole cost.
        return Run(packed.unpack(), (), *_cost(ascending[:1]))
    verdicts = [record.verdicts.unpack() for record in ascending if record.verdicts is not None]
    distances = np.full(len(verdicts[0][0]), np.inf)
    grid = tuple(float(Fraction(record.cell["eps"])) for record in ascending)
    for eps, (_, robust) in zip(reversed(grid), reversed(verdicts), strict=True):
        distances[~robust] = eps
    distances[~verdicts[0][0]] = 0.0
    return Run(distances, grid, *_cost(ascending))


def _cost(records: Sequence[Record]) -> tuple[float, float, float]:
    """Gradients, passes without a gradient, and seconds for an attacked image, added up over the records."""
    gradients = forwards = seconds = 0.0
    for record in records:
        attacked = finite(record.cost, "attacked")
        if not attacked and _attacked(record):
            attacked = record.metrics["attack_success_rate"].n or 0
        if attacked > 0:
            gradients += finite(record.cost, "gradients_per_image")
            forwards += passes(record.cost) / attacked
            seconds += finite(record.cost, "seconds") / attacked
    return gradients, forwards, seconds


def _attacked(record: Record) -> bool:
    return "attack_success_rate" in record.metrics
