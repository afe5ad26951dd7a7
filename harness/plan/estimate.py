"""How long the rest of a plan will take, by what records of this machine took. No torch.

The rates come from the records of the results folder and of the folders beside it. What no record says anything about
is counted, not guessed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from epsbench.harness.durations import shown
from epsbench.harness.errors import InputError
from epsbench.harness.hardware import device_names
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.index_file import entry_of, read_index
from epsbench.harness.plan.plan import Job, Plan, examples
from epsbench.harness.plan.recorded_entry import Timing, network_key, training_key, work_key
from epsbench.harness.records import read_record


@dataclass(frozen=True)
class Estimate:
    """The seconds of some trainings and of the measurements after them, as far as they are known."""

    training: float = 0.0
    """Seconds of the trainings whose rate is known."""
    measuring: float = 0.0
    """Seconds of the attacks, or measures of generative models, whose rate is known."""
    bounded: bool = False
    """Whether the seconds of some attacks are a bound: their gradients at the rate of other attacks on that model."""
    trainings_unknown: int = 0
    """How many trainings no record says anything about."""
    cells_unknown: int = 0
    """The same of cells."""

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.training + other.training,
            self.measuring + other.measuring,
            self.bounded or other.bounded,
            self.trainings_unknown + other.trainings_unknown,
            self.cells_unknown + other.cells_unknown,
        )

    @property
    def known(self) -> bool:
        """Whether nothing is left out."""
        return not self.trainings_unknown and not self.cells_unknown

    def __str__(self) -> str:
        """``"12 min training, at most 3 min attacks"``; what is not known is named."""
        most = "at most " if self.bounded else ""
        parts = [f"{shown(self.training)} training"] if self.training else []
        parts += [f"{most}{shown(self.measuring)} measuring"] if self.measuring else []
        unknown = [_counted(self.trainings_unknown, "training"), _counted(self.cells_unknown, "cell")]
        if missing := " and ".join(each for each in unknown if each):
            parts.append(f"{missing} not known")
        return ", ".join(parts) or "nothing"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if number else ""


@dataclass
class Rates:
    """What records of one machine say about time; each number is a median over records."""

    works: dict[str, list[float]] = field(default_factory=dict)
    gradients: dict[str, list[float]] = field(default_factory=dict)
    trainings: dict[str, list[float]] = field(default_factory=dict)
    records: int = 0
    """How many records there were."""

    @classmethod
    def of(cls, timings: Iterable[Timing], devices: Iterable[str]) -> Rates:
        """The rates of the records that were measured on one of these devices."""
        rates, devices = cls(), set(devices)
        for each in timings:
            if each.device not in devices:
                continue
            rates.records += 1
            for table, key, value in (
                (rates.works, each.work, each.image_seconds),
                (rates.gradients, each.network, each.gradient_seconds),
                (rates.trainings, each.trained_by, each.training_image_seconds),
            ):
                if value is not None:
                    table.setdefault(key, []).append(value)
        return rates


MOST_READ = 200
"""Records that are read for their times beside those of the plan and of the indices: a quarter of a second for all."""


def rates_of(plan: Plan) -> Rates:
    """The rates of this machine that the plan's results folder and the folders beside it hold."""
    known = {cell.id: entry for cell in plan.suite.cells if (entry := plan.records.known(cell.id))}
    timings = [entry.timing for entry in known.values()]
    own = plan.records.results.absolute()
    try:
        beside = [path for path in sorted(own.parent.iterdir()) if path != own and path.is_dir()]
    except OSError:  # there is no such folder yet
        beside = []
    left = MOST_READ
    for folder in (own, *beside):
        indexed = {identity: entry_of(values) for identity, (_, values) in read_index(folder).items()}
        timings += [entry.timing for identity, entry in indexed.items() if entry is not None and identity not in known]
        others = [path for path in sorted((folder / "cells").glob("*.json")) if path.stem not in indexed | known]
        timings += [timing for path in others[:left] if (timing := _timing_of(path)) is not None]
        left -= min(left, len(others))
    return Rates.of(timings, device_names())


def _timing_of(path: Path) -> Timing | None:
    """The timing of a record; None where it cannot be read, which is for the verbs that need it to say."""
    try:
        return Timing.of(read_record(path))
    except InputError:
        return None


class Estimator:
    """Estimates the jobs and cells of one plan."""

    def __init__(self, plan: Plan, weights: Path | None = None, rates: Rates | None = None) -> None:
        """``weights`` is the folder of trained weights; default: inside the results folder."""
        self._plan, self._weights = plan, weights or plan.records.results / "weights"
        self._given = rates
        self._known: dict[object, tuple[float | None, float | None]] = {}

    @cached_property
    def rates(self) -> Rates:
        """What is known about time. Records are read for it, so it is looked up where somebody asks."""
        return self._given or rates_of(self._plan)

    def jobs(self, jobs: Iterable[Job]) -> Estimate:
        """Some jobs of the plan, with the trainings that they still need."""
        cells = [cell for job in jobs for cell in job.cells]
        return sum(map(self.training, self.trained_for(cells)), Estimate()) + sum(map(self.cell, cells), Estimate())

    def trained_for(self, cells: Iterable[Cell]) -> list[Cell]:
        """The models that are still to be trained before cells are measured, each once.

        They are the cells' own, those whose gradients are followed, and those that a training starts from.
        """
        models = {each.weights_key: each for cell in cells for each in self._models(cell)}
        return [each for each in models.values() if epochs_of(each) and not self.is_trained(each)]

    def _models(self, cell: Cell) -> Iterator[Cell]:
        """The models of a cell that may have to be trained: weights to start from only where its own are missing."""
        yield cell
        if isinstance(cell, RobustnessCell):
            for source in cell.sources:
                yield from self._models(source)
            if cell.start and not self.is_trained(cell):
                yield from self._models(cell.start)

    def is_trained(self, cell: Cell) -> bool:
        """Whether the weights of a cell's model are there."""
        return (self._weights / f"{cell.weights_key}.safetensors").is_file()

    def training(self, cell: Cell) -> Estimate:
        """The training of a cell's model, without those that it starts from."""
        known = self.rates.trainings.get(training_key(cell.canonical()))
        if known is None:
            return Estimate(trainings_unknown=1)
        return Estimate(training=statistics.median(known) * images_of_training(cell))

    def cell(self, cell: Cell) -> Estimate:
        """The measurement of one cell."""
        image, gradient = self._rates(cell)
        if image is not None:
            return Estimate(measuring=image * examples(cell))
        if gradient is not None and isinstance(cell, RobustnessCell):
            most = self._plan.predicted_gradients([cell])
            if not most.unknown:
                return Estimate(measuring=gradient * (most.at_most + most.about), bounded=True)
        return Estimate(cells_unknown=1)

    def _rates(self, cell: Cell) -> tuple[float | None, float | None]:
        """Seconds an image of such a measurement, and seconds a gradient of its model; None for what is not known."""
        kind: tuple[object, ...]
        if isinstance(cell, RobustnessCell):
            kind = cell.attack, cell.norm, cell.early_stop, cell.curve, cell.randomness
        else:
            kind = cell.z_dim, cell.evaluation
        key = (cell.data, cell.model, cell.precision, kind)
        if key not in self._known:
            entry = cell.canonical()
            tables = (self.rates.works, work_key(entry)), (self.rates.gradients, network_key(entry))
            image, gradient = (statistics.median(table[each]) if each in table else None for table, each in tables)
            self._known[key] = image, gradient
        return self._known[key]


def epochs_of(cell: Cell) -> int:
    """The number of epochs of a cell's training."""
    return int(dict(cell.training)["epochs"])


def images_of_training(cell: Cell) -> int:
    """The number of images that a cell's training takes, in all its epochs together."""
    return epochs_of(cell) * describe(cell.data).training_images(cell.limit, getattr(cell, "subset", "all"))
