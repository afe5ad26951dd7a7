"""A record as trackers of experiments see it: a run with a configuration, metrics, and curves over steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from epsbench.harness.records import Record
from epsbench.harness.records.numbers import finite_number
from epsbench.harness.records.tables import canonical, flat
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import visible

BY_EPOCH = ("train_", "validation_")
"""Curves over epochs begin with these; others are over numbers of samples or latent dimensions."""


@dataclass(frozen=True)
class TrackedRun:
    """One record."""

    id: str
    """The id of its cell."""
    name: str
    """A label of the cell."""
    status: str
    """``ok``, ``failed`` or ``void``."""
    config: Mapping[str, str | int | float | bool]
    """The settings of the cell, nested keys joined by dots."""
    metrics: Mapping[str, float]
    """Metrics, the ends of their intervals (``_low``, ``_high``), and costs (``cost_``)."""
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Numbers by epoch, from 1."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Suite, commit, versions and findings."""
    started: float = 0.0
    """Seconds since 1970."""
    finished: float = 0.0
    """Seconds since 1970."""


def runs(results: Results) -> list[TrackedRun]:
    """The current records as runs."""
    return [_run(record, results) for record in results.current]


def _run(record: Record, results: Results) -> TrackedRun:
    # A void number means nothing: a tracker would sort by it.
    metrics = _metrics(record) if record.status != "void" else {}
    costs = {f"cost_{name}": value for name, value in record.cost.items()}
    training = {f"training_{name}": value for name, value in record.training.items()}
    curves = {name: values for name, values in record.curves.items() if name.startswith(BY_EPOCH) and values}
    started, finished = _seconds(record.started), _seconds(record.finished)
    return TrackedRun(
        record.id, results.names.cell(record.cell), record.status, _config(record.cell),
        metrics | _numbers({**costs, **training}), curves, _tags(record), started, max(started, finished),
    )  # fmt: skip


def _config(cell: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    return {
        visible(key): value if isinstance(value, str | int | float | bool) else canonical(value)
        for key, value in flat(cell).items()
        if value is not None
    }


def _metrics(record: Record) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, metric in record.metrics.items():
        values[name] = metric.value
        values |= {f"{name}_{end}": value for end in ("low", "high") if (value := getattr(metric, end)) is not None}
    return values


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = ((visible(name), finite_number(value)) for name, value in values.items())
    return {name: number for name, number in numbers if number is not None}


def _tags(record: Record) -> dict[str, str]:
    tags = {"epsbench.id": record.id, "epsbench.status": record.status}
    tags |= {"epsbench.suite": visible(record.suite)} if record.suite else {}
    tags |= {f"epsbench.code.{kind}": version for kind, version in record.code.items()}
    if isinstance(git := record.environment.get("git"), Mapping) and git.get("commit"):
        tags["epsbench.commit"] = str(git["commit"])
    if record.findings:
        tags["epsbench.findings"] = ", ".join(dict.fromkeys(finding.code for finding in record.findings))
    if record.failure is not None:
        tags["epsbench.failure"] = visible(record.failure.text)
    return tags


def _seconds(time: str) -> float:
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError:
        return 0.0
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def safe_keys(names: Iterable[str], longest: int = 200) -> dict[str, str]:
    """Each name → a key of letters, digits and ``_-.``, as trackers ask for; no two names share one."""
    keys: dict[str, str] = {}
    for name in names:
        key = plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:longest] or "_"
        number = 2
        while key in keys.values():
            key, number = f"{plain}_{number}", number + 1
        keys[name] = key
    return keys
