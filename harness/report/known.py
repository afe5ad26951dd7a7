"""Everything known of each cell, as plain values for the page's script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from epsbench.harness.records import Record
from epsbench.harness.records.tables import flat
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import (
    data_name,
    defense_name,
    duration,
    norm_name,
    number,
    percent,
    percent_range,
    scalar,
    visible,
)

LONGEST_VALUE = 400
GROUPS = ("cell", "metrics", "parts", "cost", "training", "evaluation", "adapted", "code", "environment")


def known(results: Results) -> dict[str, Any]:
    """The cells, each with its place among the axes, and its facts.

    Many cells share most facts. So ``"facts"`` lists each different [group, key, value] once, and a cell has their
    indices.
    """
    facts: dict[tuple[str, str, str], int] = {}
    cells = []
    for record in results.current:
        cell = record.cell
        cells.append(
            {
                "id": record.id,
                "name": results.names.cell(cell),
                "status": record.status,
                "data": data_name(cell["data"]),
                "norm": cell.get("norm", ""),
                "eps": scalar(cell["eps"]) if "eps" in cell else "",
                "seed": scalar(cell["seed"]),
                "facts": [facts.setdefault(fact, len(facts)) for fact in _facts(record)],
                "remarks": list(_remarks(record)),
            }
        )
    return {"cells": cells, "facts": [list(fact) for fact in facts]}


def choices(results: Results) -> dict[str, list[str]]:
    """The values of each axis that a reader can choose from; an axis with one value is left out."""
    cells = [record.cell for record in results.current]
    eps = {scalar(cell["eps"]): Fraction(cell["eps"]) for cell in cells if "eps" in cell}
    axes = {
        "data": list(dict.fromkeys(data_name(cell["data"]) for cell in cells)),
        "norm": list(dict.fromkeys(cell["norm"] for cell in cells if "norm" in cell)),
        "eps": sorted(eps, key=lambda spelled: eps[spelled]),
        "seed": list(dict.fromkeys(scalar(cell["seed"]) for cell in cells)),
    }
    return {axis: values for axis, values in axes.items() if len(values) > 1}


def _facts(record: Record) -> Iterator[tuple[str, str, str]]:
    yield "record", "status", record.status
    yield "record", "suite", visible(record.suite)
    yield "record", "started", visible(record.started)[:19]
    yield "record", "finished", visible(record.finished)[:19]
    for group in GROUPS:
        if group == "metrics":
            yield from (("metrics", visible(name), _metric(name, metric)) for name, metric in record.metrics.items())
        elif group == "parts":
            for part in record.parts:
                after = part.robust_accuracy
                interval = percent_range(after.low, after.high)
                text = f"{percent(after.value)} {interval} after it, tried on {part.attacked:,}"
                yield "parts", visible(part.name), text
        else:
            for key, value in flat(getattr(record, group)).items():
                yield group, visible(key), NAMES.get(key, _value)(key, value)


def _metric(name: str, metric: Any) -> str:
    if name.endswith(("accuracy", "rate")) and 0 <= metric.value <= 1:
        text = f"{percent(metric.value)} {percent_range(metric.low, metric.high)}"
    else:
        interval = "" if metric.low is None or metric.high is None else f" [{metric.low:.6g}, {metric.high:.6g}]"
        text = f"{metric.value:.6g}{interval}"
    return text + (f" of {metric.n:,}" if metric.n else "")


def _value(key: str, value: Any) -> str:
    if isinstance(value, float) and key.endswith("seconds"):
        return duration(value)
    text = number(value) if isinstance(value, float) else scalar(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


NAMES: Mapping[str, Callable[[str, Any], str]] = {
    "norm": lambda _, value: norm_name(str(value)),
    "defense.name": lambda _, value: defense_name(scalar(value)),
}
"""Facts whose values have the names that all tables use."""


def _remarks(record: Record) -> Iterator[list[str]]:
    if record.failure is not None:
        trace = visible(record.failure.traceback, keep="\n\t")
        yield ["failed", visible(record.failure.text), trace]
    for finding in record.findings:
        evidence: Mapping[str, Any] = finding.evidence
        shown = ", ".join(f"{visible(key)} {scalar(value)}" for key, value in evidence.items())
        yield [finding.severity, f"{visible(finding.code)}: {visible(finding.message)}", shown]
