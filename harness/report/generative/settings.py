"""The generative cells of a report, gathered: seeds together, likelihoods apart."""

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
from epsbench.harness.report.leaderboard import extras
from epsbench.harness.report.results import Results, canonical
from epsbench.harness.report.units import scalar
from epsbench.harness.statistics import mean_interval

SHOWN_IN_COLUMNS = frozenset({"task", "data", "model", "z_dim", "beta", "seed"})
LONGEST_NAME = 24
Likelihood = tuple[str, str]
"""Data set and number of grey levels: bits per dimension are comparable within one, and only there."""


@dataclass(frozen=True)
class Estimate:
    """A metric of a setting. Of one seed: its value and 95 % interval over images. Of several: the mean, its
    Student-t interval over seeds, and ``sd``, the sample standard deviation over seeds."""

    value: float
    low: float | None
    high: float | None
    n: int | None = None
    sd: float | None = None
    seeds: int = 1


@dataclass(frozen=True)
class Bound:
    """A bound by the number of its samples: counts, bits per dimension, and their standard errors, of equal length."""

    counts: Sequence[float]
    values: Sequence[float]
    errors: Sequence[float]


@dataclass(frozen=True)
class Dimensions:
    """For every latent dimension: its part of the rate in nats, and the variance over images of its posterior mean."""

    rates: Sequence[float]
    variances: Sequence[float]


@dataclass(frozen=True, eq=False)
class Setting:
    """One way of making a generative model: its records differ in their seed alone, and stand in its order."""

    model: str
    records: tuple[Record, ...]
    folder: Path

    @property
    def cell(self) -> dict[str, Any]:
        return self.records[0].cell

    @property
    def data(self) -> str:
        return scalar(self.cell["data"])

    @property
    def z_dim(self) -> int:
        return int(self.cell["z_dim"])

    @property
    def beta(self) -> float:
        return float(self.cell["beta"])

    @property
    def name(self) -> str:
        """``"vae, z = 20, β = 1"``."""
        return f"{self.model}, z = {self.z_dim}, β = {self.beta:g}"

    @cached_property
    def held(self) -> tuple[Record, ...]:
        """The records that have numbers."""
        return tuple(record for record in self.records if record.status == "ok")

    @property
    def levels(self) -> str:
        """The number of grey levels; empty where the model says none."""
        levels = self.cell["model"].get("levels")
        return "" if levels is None else scalar(levels)

    @property
    def likelihood(self) -> Likelihood | None:
        """What its bits per dimension are bits of; None for a model that bounds no likelihood (an autoencoder)."""
        silent = self.held and not any("test_bpd" in record.metrics for record in self.held)
        return None if silent or self.cell["model"]["name"] == "autoencoder" else (self.data, self.levels)

    def metric(self, name: str) -> Estimate | None:
        """A metric over the seeds that have it; None where none has."""
        metrics = [record.metrics[name] for record in self.held if name in record.metrics]
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

        Raises `InputError`, naming the record, for lists that do not go together.
        """
        for record in self.held:
            if counts in record.curves:
                lists = [record.curves.get(key, []) for key in (counts, name, f"{name}_error")]
                ascending = all(a < b for a, b in zip([0.0, *lists[0]], lists[0], strict=False))
                if len({len(held) for held in lists}) > 1 or not ascending or min(lists[2], default=0.0) < 0:
                    raise self._bad(record, f"{counts}, {name} and {name}_error")
                return Bound(*lists) if lists[0] else None
        return None

    def dimensions(self) -> Dimensions | None:
        """Its latent dimensions, of the first seed that has them. Raises `InputError` where their number is wrong."""
        for record in self.held:
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
            f"{path}: curves.{names}: do not go together in number or order; delete the file and run the suite again "
            "to measure this cell anew"
        )


def settings(results: Results) -> list[Setting]:
    """Every generative setting, by data set in the order of the records, then by model, z and β; those that bound no
    likelihood come last.

    Those that one model's label does not tell apart are labelled with what of their training differs; those that
    differ in their evaluation alone, with what differs there.
    """
    ways: dict[str, list[Record]] = defaultdict(list)
    for record in results.generation:
        ways[canonical({key: value for key, value in record.cell.items() if key != "seed"})].append(record)
    uses: dict[tuple[str, str], list[tuple[Record, ...]]] = defaultdict(list)
    for group in ways.values():
        cell = group[0].cell
        use = scalar(cell["data"]), results.names.label("model", cell["model"])
        uses[use].append(tuple(sorted(group, key=lambda record: record.cell["seed"])))
    made = []
    for (_, label), groups in uses.items():
        told = _apart([group[0] for group in groups])
        made += [
            Setting(f"{label} ({extra})" if extra else label, group, results.home(group[0]))
            for group, extra in zip(groups, told, strict=True)
        ]
    order = list(dict.fromkeys(setting.data for setting in made))
    return sorted(made, key=lambda s: (order.index(s.data), s.likelihood is None, s.model, s.z_dim, s.beta))


def _apart(records: Sequence[Record]) -> list[str]:
    """What sets each of these records of one model and data set apart, beyond what columns show."""
    told = extras(records, SHOWN_IN_COLUMNS | {"evaluation"})
    alike: dict[tuple[str, Any, Any], list[int]] = defaultdict(list)
    for index, (record, extra) in enumerate(zip(records, told, strict=True)):
        alike[extra, record.cell["z_dim"], record.cell["beta"]].append(index)
    for indices in alike.values():
        for index, way in zip(indices, extras([records[index] for index in indices], SHOWN_IN_COLUMNS), strict=True):
            told[index] = ", ".join(filter(None, [told[index], way]))
    return told


def by_likelihood(held: Iterable[Setting]) -> dict[Likelihood, list[Setting]]:
    """Settings by likelihood; those without one are left out, for nothing can be told of their bits."""
    groups: dict[Likelihood, list[Setting]] = defaultdict(list)
    for setting in held:
        if (likelihood := setting.likelihood) is not None:
            groups[likelihood].append(setting)
    return groups


def by_data(held: Iterable[Setting]) -> dict[str, list[Setting]]:
    groups: dict[str, list[Setting]] = defaultdict(list)
    for setting in held:
        groups[setting.data].append(setting)
    return groups


def families(held: Iterable[Setting], axis: str) -> list[list[Setting]]:
    """Settings that differ in one axis alone (``"z_dim"`` or ``"beta"``), ascending along it."""
    groups: dict[str, list[Setting]] = defaultdict(list)
    for setting in held:
        rest = {key: value for key, value in setting.cell.items() if key not in (axis, "seed")}
        groups[canonical(rest)].append(setting)
    return [sorted(group, key=lambda setting: float(setting.cell[axis])) for group in groups.values()]


def best(held: Iterable[Setting]) -> list[Setting]:
    """Settings by their test bits per dimension, the lowest first; those without come last."""

    def test(setting: Setting) -> float:
        estimate = setting.metric("test_bpd")
        return math.inf if estimate is None else estimate.value

    return sorted(held, key=test)


def short_names(held: Sequence[Setting]) -> list[str]:
    """What tells these settings apart: ``"z = 20"`` where only z differs, the whole name where nothing does; no name
    stands twice."""
    parts = [(shorten(setting.model), f"z = {setting.z_dim}", f"β = {setting.beta:g}") for setting in held]
    varying = [index for index in range(3) if len({part[index] for part in parts}) > 1] or [0, 1, 2]
    names = [", ".join(part[index] for index in varying) for part in parts]
    return distinct(names)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where one stands again."""
    before = [names[:index].count(name) for index, name in enumerate(names)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, before, strict=True)]


def shorten(name: str) -> str:
    """A name that a figure has room for."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def title(likelihood: Likelihood) -> str:
    """``"mnist, 16 grey levels"``."""
    data, levels = likelihood
    return data + (f", {levels} grey levels" if levels else "")
