"""`epsbench check`: whether the records of a suite satisfy its expectations."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from epsbench.harness.errors import InputError
from epsbench.harness.records import Metric, Record, find_record
from epsbench.harness.report.gates.badge import write_badge
from epsbench.harness.report.gates.costs import MACHINE_FREE, References, cost
from epsbench.harness.report.gates.junit import Case, Outcome, write_junit
from epsbench.harness.report.gates.summary import append_summary
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.results.units import (
    bits,
    bits_range,
    number,
    number_range,
    percent,
    percent_range,
    plural,
    scalar,
    visible,
)

if TYPE_CHECKING:
    from epsbench.harness.plan.bounds import Bound
    from epsbench.harness.plan.expand import Expectation
    from epsbench.harness.plan.suite import Suite

Verdict = Literal["holds", "within noise", "broken", "not measured"]
OUTCOMES: dict[Verdict, Outcome] = {
    "holds": "passed",
    "within noise": "passed",
    "broken": "failure",
    "not measured": "error",
}
HOLDS, BROKEN, NOT_MEASURED = 0, 1, 2
SHARES = {
    "floor_share",
    "clean_accuracy",
    "robust_accuracy",
    "attack_success_rate",
    "probe_accuracy",
    "precision",
    "recall",
    "coverage",
    "clipped_density",
    "clipped_coverage",
}
"""Metrics in [0, 1], shown in percent."""
RATIO = "ratio"
LACKING = {
    "floor_share": ": the floor is timed only where that takes much less time than the attack; use more examples or "
    "more steps"
}


@dataclass(frozen=True)
class Line:
    """One bound on one cell, with its verdict."""

    task: str
    """The task of the cell."""
    verdict: Verdict
    """Whether the bound holds."""
    bound: str
    """The bound as text."""
    value: str
    """The measured value as text, or why there is none."""
    cell: str
    """The label of the cell."""
    identity: str
    """The id of the cell."""

    def __str__(self) -> str:
        return f"{self.verdict:<12}  {self.bound}: {self.value}  [{self.cell}; id {self.identity}]"


def judge(metric: Metric, bound: Bound, *, strict: bool) -> Verdict:
    """The verdict on a metric and its bound.

    The bound is broken when the whole 95 % interval is outside it. A value outside whose interval reaches inside is
    "within noise" and passes. With ``strict``, or without an interval, the value alone decides.
    """
    least, most = bound.min, bound.max
    if (least is None or metric.value >= least) and (most is None or metric.value <= most):
        return "holds"
    if strict or metric.low is None or metric.high is None:
        return "broken"
    if (least is not None and metric.high < least) or (most is not None and metric.low > most):
        return "broken"
    return "within noise"


def check_suite(
    suite: Suite,
    results: Path,
    junit: Path | None = None,
    summary: Path | None = None,
    baseline: Path | None = None,
    badge: Path | None = None,
) -> tuple[int, str]:
    """Judge every bound of a suite on every cell that it matches.

    Returns the exit code and the text. The code is 0 when all bounds hold, 1 when at least one is broken, and 2 when
    none is broken but at least one could not be judged, because its cell is missing, failed or void. ``junit`` is a
    file for the verdicts as XML; ``summary`` is one that they are appended to as Markdown.
    ``badge`` is a file for the verdict as an SVG badge.
    ``baseline`` is the results folder of an earlier run, which costs can be relative to.
    Raises `InputError` for a suite without expectations, for a corrupt record and for a baseline without records.
    """
    if not suite.expectations:
        raise InputError(
            f"{suite.path}: expect: the suite has no bounds, so there is nothing to check; add an [[robustness.expect]]"
        )
    names = Names(cell.canonical() for cell in suite.cells)
    references = References.read(results, baseline)
    records = _Records(references.results)
    lines = [line for each in suite.expectations for line in _lines(each, suite, references, names, records)]
    counts = {verdict: sum(line.verdict == verdict for line in lines) for verdict in OUTCOMES}
    code = BROKEN if counts["broken"] else NOT_MEASURED if counts["not measured"] else HOLDS
    hold = counts["holds"] + counts["within noise"]
    total = f"{visible(suite.name)}: {hold} of {plural(len(lines), 'bound')} hold"
    if counts["within noise"]:
        total += (
            f" ({counts['within noise']} of them within noise: the value is outside its bound, but the 95 % interval "
            "reaches inside)"
        )
    for verdict in ("broken", "not measured"):
        total += f", {counts[verdict]} {verdict}" if counts[verdict] else ""
    cases = [Case(line.task, f"{line.bound} [{line.cell}]", OUTCOMES[line.verdict], str(line)) for line in lines]
    if junit is not None:
        write_junit(junit, visible(suite.name), cases)
    if badge is not None:
        write_badge(badge, visible(suite.name), f"{hold} of {plural(len(lines), 'bound')} hold", code)
    if summary is not None:
        append_summary(summary, total, cases)
    return code, "\n".join([*map(str, lines), total])


class _Records:
    """The records of one folder, each read once however many bounds are on it."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._read: dict[str, Record | None] = {}

    def __getitem__(self, identity: str) -> Record | None:
        """The record of the cell with this id, or None."""
        if identity not in self._read:
            self._read[identity] = find_record(self._results, identity)
        return self._read[identity]


def _lines(
    expectation: Expectation, suite: Suite, references: References, names: Names, records: _Records
) -> Iterator[Line]:
    for cell in expectation.cells:
        record = records[cell.id]
        for name, bound in expectation.bounds.items():
            text = f"{name} {_bound(bound, name)}" + (" (strict)" if expectation.strict else "")
            verdict, value = _measured(record, name, bound, suite, references.results, strict=expectation.strict)
            if record is not None and record.status == "ok" and (relative_to := getattr(bound, "relative_to", None)):
                ratio = references.ratio(record, name, cell, expectation)
                text = f"{name} {_bound(bound, RATIO)} × {_reference(relative_to)}"
                verdict, value = ("not measured", ratio) if isinstance(ratio, str) else (
                    judge(ratio, bound, strict=True), f"{number(ratio.value)} ×"
                )  # fmt: skip
            yield Line(expectation.task, verdict, text, value, names.cell(cell.canonical()), cell.id)


def _measured(
    record: Record | None, name: str, bound: Bound, suite: Suite, results: Path, *, strict: bool
) -> tuple[Verdict, str]:
    if record is None:
        again = visible(shlex.join(["epsbench", "run", str(suite.path), *suite.arguments, "--out", str(results)]))
        return "not measured", f"there is no record of this cell and the present code; `{again}` measures it"
    if record.status != "ok":
        return "not measured", f"the cell is {record.status}: {_reason(record)}"
    metric = record.metrics.get(name)
    if metric is None and name in MACHINE_FREE and (value := cost(record, name)) is not None:
        metric = Metric(value=value)
    if metric is None:
        return "not measured", f"the record has no {name}{LACKING.get(name, '')}"
    return judge(metric, bound, strict=strict), _metric(metric, name)


def _reference(relative_to: Any) -> str:
    """What a cost is relative to: ``"baseline"`` or ``"attack fgsm"``."""
    if isinstance(relative_to, str):
        return relative_to
    return ", ".join(f"{axis} {scalar(value)}" for axis, value in relative_to.items())


def _reason(record: Record) -> str:
    if record.failure is not None:
        return visible(record.failure.text)
    voiding = [finding for finding in record.findings if finding.severity == "void"]
    return "; ".join(visible(f"{finding.code}: {finding.message}") for finding in voiding) or "no reason recorded"


def _spelling(name: str) -> tuple[Callable[[float], str], Callable[[float | None, float | None], str]]:
    """How a metric's value and interval are written."""
    if name in SHARES:
        return percent, percent_range
    return (bits, bits_range) if name.endswith("_bpd") else (number, number_range)


def _metric(metric: Metric, name: str) -> str:
    spell, spell_range = _spelling(name)
    n = f"n = {metric.n:,}" if metric.n is not None else ""
    return " ".join(part for part in (spell(metric.value), spell_range(metric.low, metric.high), n) if part)


def _bound(bound: Bound, name: str) -> str:
    spell, _ = _spelling(name)
    parts = [f"≥ {spell(bound.min)}"] if bound.min is not None else []
    parts += [f"≤ {spell(bound.max)}"] if bound.max is not None else []
    return " and ".join(parts)
