"""Two result sets of the same cells, example by example: is B worse than A, and by how much could one tell?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from epsbench.harness.records import Metric, Record
from epsbench.harness.report.junit import Case, Outcome, write_junit
from epsbench.harness.report.results import ATTACKING, Names, canonical, load_results
from epsbench.harness.report.summary import append_summary
from epsbench.harness.report.units import bits, p_value, percent, plural, points, visible
from epsbench.harness.statistics import (
    difference_test,
    holm,
    mcnemar_exact,
    normal_quantile,
    paired_difference_interval,
    smallest_detectable_difference,
)

# Two-sided and for the whole family: what did not change is called worse in at most 1 of 200 comparisons.
ALPHA = 0.01
SAME_OR_BETTER, WORSE, NOT_COMPARABLE = 0, 1, 2

Verdict = Literal["worse", "better", "no difference"]
OUTCOMES: dict[Verdict, Outcome] = {"worse": "failure", "better": "passed", "no difference": "passed"}


@dataclass(frozen=True)
class Test:
    """One comparison, before the family it belongs to is known. ``worsened`` is the direction of the difference."""

    cell: str
    metric: str
    told: str
    p: float
    worsened: bool
    changed: int | None = None
    n: int | None = None

    __test__ = False  # not a test case, whatever pytest thinks of the name


@dataclass(frozen=True)
class Skipped:
    """A cell measured in A that B cannot be held against."""

    cell: str
    why: str


def compare(a: Path, b: Path, junit: Path | None = None, summary: Path | None = None) -> tuple[int, str]:
    """Compare results ``b`` with results ``a``, cell by cell of the same id.

    Robust and clean verdicts are compared by McNemar's exact paired test, bits per dimension by an unpaired z-test
    on their intervals; p-values are adjusted by Holm over the whole family. ``junit`` and ``summary`` are files for
    the verdicts, as XML and, appended, as Markdown. Returns the exit code and the text:
    0 nothing is significantly worse, 1 something is, 2 nothing is but the sets are not comparable: no common cell,
    a cell that A measured is missing, failed or void in B, or it counts other examples.
    Raises `InputError` for a folder that is missing, empty or holds a bad record.
    """
    before, after = load_results(a), load_results(b)
    names = Names(record.cell for record in (*before.current, *after.current))
    held_b = {record.id: record for record in after.current}
    tests: list[Test] = []
    skipped: list[Skipped] = []
    clean_seen: set[str] = set()
    for record in before.current:
        if record.status != "ok":
            continue
        label = names.cell(record.cell)
        if (why := _incomparable(record, held_b.get(record.id))) is not None:
            skipped.append(Skipped(label, why))
            continue
        tests += _tests(record, held_b[record.id], names, clean_seen)
    adjusted, verdicts = judge(tests)
    cases = list(_cases(tests, adjusted, verdicts, skipped))
    total = _summary(verdicts, skipped, len(tests))
    if junit is not None:
        write_junit(junit, visible(f"{a} against {b}"), cases)
    if summary is not None:
        append_summary(summary, f"{visible(str(b))} against {visible(str(a))}: {total}", cases)
    lines = [
        f"{verdict:<13}  {_told(test, p, len(tests))}"
        for test, p, verdict in zip(tests, adjusted, verdicts, strict=True)
    ]
    lines += [f"{'not compared':<13}  {skip.cell}: {skip.why}" for skip in skipped]
    code = WORSE if "worse" in verdicts else NOT_COMPARABLE if skipped or not tests else SAME_OR_BETTER
    return code, "\n".join([*lines, total])


def judge(tests: Sequence[Test]) -> tuple[list[float], list[Verdict]]:
    """A whole family at once: its p-values after Holm, and what they say of each test."""
    adjusted = holm([test.p for test in tests])
    return adjusted, [_verdict(test, p) for test, p in zip(tests, adjusted, strict=True)]


def _incomparable(a: Record, b: Record | None) -> str | None:
    """Why a cell measured in A cannot be held against B; None when it can."""
    if b is None:
        return "missing in B (not run, or run with other code)"
    if b.status != "ok":
        reason = visible(f": {b.failure.type}: {b.failure.message}") if b.failure is not None else ""
        return f"{b.status} in B{reason}"
    if a.cell["task"] == "generation":
        name = _bound_of(a, b)
        return None if name in a.metrics and name in b.metrics else f"{name} is not in both"
    if a.verdicts is None or b.verdicts is None:
        return "per-example verdicts are not in both"
    if a.verdicts.n != b.verdicts.n:
        return f"{a.verdicts.n:,} examples in A, {b.verdicts.n:,} in B"
    return None if a.verdicts.n else "no examples"


def _bound_of(a: Record, b: Record) -> str:
    """The metric that generative models are compared by: an autoencoder has no bound, but what it restores badly."""
    return "test_bpd" if any("test_bpd" in record.metrics for record in (a, b)) else "distortion_bpd"


def _tests(a: Record, b: Record, names: Names, clean_seen: set[str]) -> Iterator[Test]:
    label = names.cell(a.cell)
    if a.cell["task"] == "generation":
        name = _bound_of(a, b)
        yield _bits(name, a.metrics[name], b.metrics[name], label)
        return
    assert a.verdicts is not None
    assert b.verdicts is not None
    (clean_a, robust_a), (clean_b, robust_b) = a.verdicts.unpack(), b.verdicts.unpack()
    yield paired("robust accuracy", robust_a, robust_b, label)
    # All attacks on one model share its clean verdicts; testing them once keeps the family small.
    model = {key: value for key, value in a.cell.items() if key not in ATTACKING}
    key = canonical([model, a.verdicts.clean, b.verdicts.clean])
    if key not in clean_seen:
        clean_seen.add(key)
        yield paired("clean accuracy", clean_a, clean_b, names.trained(a.cell))


def paired(metric: str, a: np.ndarray, b: np.ndarray, label: str) -> Test:
    """McNemar's exact test of verdicts (n,) before and after, with the difference and its interval in words."""
    losses, gains, n = int((a & ~b).sum()), int((~a & b).sum()), len(a)
    difference, low, high = paired_difference_interval(losses, gains, n)
    told = (
        f"{percent(a.mean())} → {percent(b.mean())}, {points(difference)} points [{points(low)}, {points(high)}], "
        f"{losses:,} lost and {gains:,} gained of {n:,}"
    )
    return Test(label, metric, told, mcnemar_exact(losses, gains), losses > gains, losses + gains, n)


def _bits(name: str, a: Metric, b: Metric, label: str) -> Test:
    error_a, error_b = _standard_error(a), _standard_error(b)
    difference, half = b.value - a.value, normal_quantile() * float(np.hypot(error_a, error_b))
    told = (
        f"{bits(a.value)} → {bits(b.value)}, {difference:+.3f} [{difference - half:+.3f}, {difference + half:+.3f}]"
        " bits per dimension, lower is better"
    )
    return Test(label, name, told, difference_test(a.value, error_a, b.value, error_b), difference > 0)


def _standard_error(metric: Metric) -> float:
    if metric.low is None or metric.high is None:
        return 0.0
    return (metric.high - metric.low) / (2 * normal_quantile())


def _verdict(test: Test, adjusted: float) -> Verdict:
    if adjusted >= ALPHA:
        return "no difference"
    return "worse" if test.worsened else "better"


def _told(test: Test, adjusted: float, family: int) -> str:
    told = f"{test.metric}: {test.told}, p {p_value(test.p)}, {p_value(adjusted)} after Holm"
    if test.changed is not None and test.n is not None:
        # Holm's first step, the strictest, so that what is promised here holds for every test of the family.
        smallest = smallest_detectable_difference(test.changed, test.n, ALPHA / family)
        told += f", smallest detectable difference {100 * smallest:.1f} points"
    return f"{told}  [{test.cell}]"


def _cases(
    tests: Sequence[Test], adjusted: Sequence[float], verdicts: Sequence[Verdict], skipped: Sequence[Skipped]
) -> Iterator[Case]:
    for test, p, verdict in zip(tests, adjusted, verdicts, strict=True):
        message = f"{verdict}: {_told(test, p, len(tests))}"
        yield Case("compare", f"{test.metric} [{test.cell}]", OUTCOMES[verdict], message)
    for skip in skipped:
        yield Case("compare", f"[{skip.cell}]", "error", f"not compared: {skip.why}")


def _summary(verdicts: Sequence[Verdict], skipped: Sequence[Skipped], tests: int) -> str:
    if not tests and not skipped:
        return "not comparable: A has measured no cell"
    if not tests:
        return f"not comparable: no cell that A measured can be held against B ({plural(len(skipped), 'cell')})"
    worse, better = verdicts.count("worse"), verdicts.count("better")
    told = f"{plural(tests, 'test')}: {worse} significantly worse, {better} significantly better"
    told += f", {tests - worse - better} no difference"
    told += f" (level {100 * ALPHA:.0f} % for the whole family; detectable means found with 80 % power)"
    return told + (f"; {plural(len(skipped), 'cell')} not compared" if skipped else "")
