"""The generative cells of a report in settings, which hold the seeds of one way of training, and in groups of those."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import stdev
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.records import Record, record_path
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.results.differences import differences
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import data_name, distinct, scalar
from epsbench.harness.statistics import mean_interval

SHOWN_IN_COLUMNS = frozenset({"task", "data", "model", "z_dim", "beta", "seed"})
LONGEST_NAME = 24
Likelihood = tuple[str, str]
"""Data set and number of grey levels; only bits per dimension of the same likelihood can be compared."""


@dataclass(frozen=True)
class Estimate:
    """A metric of a setting."""

    value: float
    """The value; of several seeds, the mean."""
    low: float | None
    """The lower end of its 95 % interval: over images for one seed, Student's t over several."""
    high: float | None
    """The upper end of the interval."""
    n: int | None = None
    """The number of images, or of what else it is measured on."""
    sd: float | None = None
    """The sample standard deviation over seeds; None for one seed."""
    seeds: int = 1
    """The number of seeds."""


@dataclass(frozen=True)
class Bound:
    """A bound as a function of its number of samples; the three lists have equal length."""

    counts: Sequence[float]
    """The numbers of samples, ascending."""
    values: Sequence[float]
    """Bits per dimension."""
    errors: Sequence[float]
    """Their standard errors."""


@dataclass(frozen=True)
class Dimensions:
    """What each latent dimension carries."""

    rates: Sequence[float]
    """Its part of the rate, in nats."""
    variances: Sequence[float]
    """The variance over images of its posterior mean."""


@dataclass(frozen=True, eq=False)
class Setting:
    """One way of training a generative model."""

    model: str
    """The label of the model."""
    records: tuple[Record, ...]
    """The records, which differ only in their seed, in the order of the seeds."""
    folder: Path
    """The results folder of the first record."""

    @property
    def cell(self) -> dict[str, Any]:
        """The cell of the first seed."""
        return self.records[0].cell

    @property
    def data(self) -> str:
        """The data set."""
        return data_name(self.cell["data"])

    @property
    def z_dim(self) -> int:
        """The number of latent dimensions."""
        return int(self.cell["z_dim"])

    @property
    def beta(self) -> float:
        """The weight of the rate in the training loss."""
        return float(self.cell["beta"])

    @property
    def name(self) -> str:
        """``"vae, z = 20, β = 1"``."""
        return f"{self.model}, z = {self.z_dim}, β = {self.beta:g}"

    @cached_property
    def measured(self) -> tuple[Record, ...]:
        """The records that have numbers, in the order of the seeds."""
        return tuple(record for record in self.records if record.status == "ok")

    @property
    def levels(self) -> str:
        """The number of grey levels; empty where neither the records nor the cell say it."""
        measured = (record.evaluation.get("grey_levels") for record in self.measured)
        levels = next((each for each in measured if each is not None), self.cell["model"].get("levels"))
        return "" if levels is None else scalar(levels)

    @property
    def likelihood(self) -> Likelihood | None:
        """The likelihood that its bits per dimension measure; None for a model without one, such as an autoencoder."""
        unbounded = self.measured and not any("test_bpd" in record.metrics for record in self.measured)
        return None if unbounded or self.cell["model"]["name"] == "autoencoder" else (self.data, self.levels)

    def metric(self, name: str) -> Estimate | None:
        """A metric over the seeds that have it; None where none has."""
        metrics = [record.metrics[name] for record in self.measured if name in record.metrics]
        if not metrics:
            return None
        if len(metrics) == 1:
            return Estimate(metrics[0].value, metrics[0].low, metrics[0].high, metrics[0].n)
        values = [metric.value for metric in metrics]
        mean, low, high = mean_interval(values)
        return Estimate(mean, low, high, metrics[0].n, stdev(values), len(values))

    def samples(self, key: str) -> int | None:
        """A count of its evaluation, such as ``importance_samples``."""
        count = self.cell.get("evaluation", {}).get(key)
        return count if isinstance(count, int) and count > 0 else None

    def bound(self, name: str, counts: str) -> Bound | None:
        """The curve ``name`` over ``counts``, of the first seed that has it.

        Raises `InputError`, naming the record, for lists of different length or order.
        """
        for record in self.measured:
            if counts in record.curves:
                lists = [record.curves.get(key, []) for key in (counts, name, f"{name}_error")]
                ascending = all(a < b for a, b in zip([0.0, *lists[0]], lists[0], strict=False))
                if len({len(values) for values in lists}) > 1 or not ascending or min(lists[2], default=0.0) < 0:
                    raise self._bad(record, f"{counts}, {name} and {name}_error")
                return Bound(*lists) if lists[0] else None
        return None

    def dimensions(self) -> Dimensions | None:
        """Its latent dimensions, of the first seed that has them. Raises `InputError` where their number is wrong."""
        for record in self.measured:
            rates = record.curves.get("dimension_rate_nats")
            if rates:
                variances = record.curves.get("dimension_mean_variance", [])
                if not len(rates) == len(variances) == self.z_dim:
                    raise self._bad(record, "dimension_rate_nats and dimension_mean_variance")
                return Dimensions(rates, variances)
        return None

    def _bad(self, record: Record, names: str) -> InputError:
        path = record_path(self.folder, record.id)
        return InputError(
            f"{path}: curves.{names}: their lengths or their order do not match; delete the file and run the suite "
            "again to measure this cell anew"
        )


def settings(results: Results) -> list[Setting]:
    """Every generative setting, by data set in the order of the records, then by model, z and β; those without a
    likelihood come last.

    Where settings share model, z and β, the label also names what differs in their training; where only their
    evaluation differs, what differs there.
    """
    ways: dict[str, list[Record]] = defaultdict(list)
    for record in results.generation:
        ways[canonical({key: value for key, value in record.cell.items() if key != "seed"})].append(record)
    uses: dict[tuple[str, str], list[tuple[Record, ...]]] = defaultdict(list)
    for group in ways.values():
        cell = group[0].cell
        use = data_name(cell["data"]), results.names.label("model", cell["model"])
        uses[use].append(tuple(sorted(group, key=lambda record: record.cell["seed"])))
    made = []
    for (_, label), groups in uses.items():
        extras = _extras([group[0] for group in groups])
        made += [
            Setting(f"{label} ({extra})" if extra else label, group, results.home(group[0]))
            for group, extra in zip(groups, extras, strict=True)
        ]
    order = list(dict.fromkeys(setting.data for setting in made))
    return sorted(made, key=lambda s: (order.index(s.data), s.likelihood is None, s.model, s.z_dim, s.beta))


def _extras(records: Sequence[Record]) -> list[str]:
    """What distinguishes each of these records of one model and data set, beyond what the columns show."""
    extras = differences(records, SHOWN_IN_COLUMNS | {"evaluation"})
    alike: dict[tuple[str, Any, Any], list[int]] = defaultdict(list)
    for index, (record, extra) in enumerate(zip(records, extras, strict=True)):
        alike[extra, record.cell["z_dim"], record.cell["beta"]].append(index)
    for indices in alike.values():
        evaluations = differences([records[index] for index in indices], SHOWN_IN_COLUMNS)
        for index, evaluation in zip(indices, evaluations, strict=True):
            extras[index] = ", ".join(filter(None, [extras[index], evaluation]))
    return extras


def by_likelihood(shown: Iterable[Setting]) -> dict[Likelihood, list[Setting]]:
    """Settings by likelihood; those without one are left out."""
    groups: dict[Likelihood, list[Setting]] = defaultdict(list)
    for setting in shown:
        if (likelihood := setting.likelihood) is not None:
            groups[likelihood].append(setting)
    return groups


def by_data(shown: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Settings by data set."""
    groups: dict[str, list[Setting]] = defaultdict(list)
    for setting in shown:
        groups[setting.data].append(setting)
    return groups


def families(shown: Iterable[Setting], axis: str) -> list[list[Setting]]:
    """Groups of settings that differ only in one axis (``"z_dim"`` or ``"beta"``), ascending along it."""
    return [sorted(group, key=lambda setting: float(setting.cell[axis])) for group in alike_but_for(shown, axis)]


def alike_but_for(shown: Iterable[Setting], axis: str) -> list[list[Setting]]:
    """Groups of settings that differ only in one key of their cells, each in the order given."""
    groups: dict[str, list[Setting]] = defaultdict(list)
    for setting in shown:
        rest = {key: value for key, value in setting.cell.items() if key not in (axis, "seed")}
        groups[canonical(rest)].append(setting)
    return list(groups.values())


def best(shown: Iterable[Setting]) -> list[Setting]:
    """Settings by their test bits per dimension, the lowest first; those without a value come last."""

    def test(setting: Setting) -> float:
        estimate = setting.metric("test_bpd")
        return math.inf if estimate is None else estimate.value

    return sorted(shown, key=test)


def short_names(shown: Sequence[Setting]) -> list[str]:
    """The parts of their names that differ, such as ``"z = 20"``; the whole name where nothing differs.

    No two names are equal.
    """
    parts = [(shorten(setting.model), f"z = {setting.z_dim}", f"β = {setting.beta:g}") for setting in shown]
    varying = [index for index in range(3) if len({part[index] for part in parts}) > 1] or [0, 1, 2]
    names = [", ".join(part[index] for index in varying) for part in parts]
    return distinct(names)


def shorten(name: str) -> str:
    """The name, cut to the length that a figure has room for."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def likelihood_title(likelihood: Likelihood) -> str:
    """``"mnist, 16 grey levels"``."""
    data, levels = likelihood
    return data + (f", {levels} grey levels" if levels else "")
