"""`epsbench compare`: paired tests of two result sets, and the smallest difference that they could detect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from epsbench.harness.records import Metric, Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.gates.junit import Case, Outcome, write_junit
from epsbench.harness.report.gates.summary import append_summary
from epsbench.harness.report.results.cells import ATTACKING
from epsbench.harness.report.results.loading import Results, load_results
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.results.units import (
    bits,
    change_in_points,
    p_value,
    percent,
    plural,
    some_of,
    visible,
)
from epsbench.harness.statistics import (
    difference_test,
    holm,
    mcnemar_exact,
    normal_quantile,
    paired_difference_interval,
    smallest_detectable_difference,
)

# Two-sided, for the whole family: an unchanged result is called worse in at most 1 of 200 comparisons.
ALPHA = 0.01
LONGEST_VERSION = 8
SAME_OR_BETTER, WORSE, NOT_COMPARABLE = 0, 1, 2

Verdict = Literal["worse", "better", "no difference"]
OUTCOMES: dict[Verdict, Outcome] = {"worse": "failure", "better": "passed", "no difference": "passed"}


@dataclass(frozen=True)
class Test:
    """One comparison, before the adjustment for the number of comparisons."""

    cell: str
    """The label of the cell."""
    metric: str
    """The name of the metric."""
    change: str
    """Both values and their difference as text."""
    p: float
    """The p-value of the test, two-sided."""
    worsened: bool
    """Whether B is worse than A by value."""
    changed: int | None = None
    """The number of examples whose verdict changed."""
    n: int | None = None
    """The number of examples."""
    code: str = ""
    """Which part of the code differs between A and B, such as ``"attack 1 → 2"``; empty where none does."""

    __test__ = False  # pytest would take a class of this name for a test case


@dataclass(frozen=True)
class Skipped:
    """A cell measured in A that cannot be compared with B."""

    cell: str
    """The label of the cell."""
    why: str
    """The reason."""


def compare(a: Path, b: Path, junit: Path | None = None, summary: Path | None = None) -> tuple[int, str]:
    """Compare results ``b`` with results ``a``, cell by cell of the same settings.

    The code behind the cells may differ, as between two commits; each line then says which part of it does.
    Robust and clean verdicts are compared by McNemar's exact paired test, bits per dimension by an unpaired z-test
    on their intervals; p-values are adjusted by Holm over all tests. ``junit`` is a file for the verdicts as XML;
    ``summary`` is one that they are appended to as Markdown. Returns the exit code and the text. The code is 0 when
    nothing is significantly worse, 1 when something is, and 2 when nothing is but the sets cannot be compared: they
    have no common cell, or a cell that A measured is missing, failed or void in B, or has other examples there.
    Raises `InputError` for a folder that is missing, empty or holds a bad record.
    """
    before, after = load_results(a, mixed=True), load_results(b, mixed=True)
    names = Names(record.cell for record in (*before.current, *after.current))
    records_b = {canonical(record.cell): record for record in after.current}
    tests: list[Test] = []
    skipped: list[Skipped] = []
    clean_seen: set[str] = set()
    for record in before.current:
        if record.status != "ok":
            continue
        label = names.cell(record.cell)
        other = records_b.get(canonical(record.cell))
        if other is None or (why := _incomparable(record, other)) is not None:
            skipped.append(Skipped(label, "missing in B: no cell with these settings" if other is None else str(why)))
            continue
        changed = changed_code(record, other)
        tests += [replace(test, code=changed) for test in _tests(record, other, names, clean_seen)]
    adjusted, verdicts = judge(tests)
    cases = list(_cases(tests, adjusted, verdicts, skipped))
    total = _summary(verdicts, skipped, len(tests))
    if junit is not None:
        write_junit(junit, visible(f"{a} against {b}"), cases)
    if summary is not None:
        append_summary(summary, f"{visible(str(b))} against {visible(str(a))}: {total}", cases)
    lines = [
        f"{verdict:<13}  {_line(test, p, len(tests))}"
        for test, p, verdict in zip(tests, adjusted, verdicts, strict=True)
    ]
    lines += [f"{'not compared':<13}  {skip.cell}: {skip.why}" for skip in skipped]
    lines += [f"{side}: {text}" for side, text in (("A", commits(before)), ("B", commits(after))) if text]
    code = WORSE if "worse" in verdicts else NOT_COMPARABLE if skipped or not tests else SAME_OR_BETTER
    return code, "\n".join([*lines, total])


def judge(tests: Sequence[Test]) -> tuple[list[float], list[Verdict]]:
    """The p-values of all tests after Holm's adjustment, and the verdicts."""
    adjusted = holm([test.p for test in tests])
    return adjusted, [_verdict(test, p) for test, p in zip(tests, adjusted, strict=True)]


def changed_code(a: Record, b: Record) -> str:
    """The parts of the code behind a cell whose versions differ: ``"attack 1 → 2, model 3f2a91c0 → e81b77d4"``."""
    parts = [part for part in dict.fromkeys((*a.code, *b.code)) if a.code.get(part) != b.code.get(part)]
    return ", ".join(f"{visible(part)} {_version(a.code.get(part))} → {_version(b.code.get(part))}" for part in parts)


def _version(version: str | None) -> str:
    return "none" if version is None else visible(version[:LONGEST_VERSION])


def commits(results: Results) -> str:
    """The commits that the records name, of the repository under test and of epsbench; empty where there are none."""
    texts = []
    for key, what in (("repository", "commit"), ("git", "epsbench commit")):
        seen: dict[str, None] = {}
        for record in results.current:
            git = record.environment.get(key)
            if isinstance(git, dict) and isinstance(git.get("commit"), str):
                seen[visible(git["commit"])[:12] + (" with uncommitted changes" if git.get("dirty") else "")] = None
        if seen:
            texts.append(f"{what} {some_of(list(seen), 4)}")
    return "; ".join(texts)


def _incomparable(a: Record, b: Record) -> str | None:
    """Why a cell measured in A cannot be compared with B; None when it can."""
    if a.code.get("data") != b.code.get("data"):
        return "A and B were measured on other examples: the data or their split differ"
    if b.status != "ok":
        reason = visible(f": {b.failure.text}") if b.failure is not None else ""
        return f"{b.status} in B{reason}"
    if a.cell["task"] == "generation":
        name = _bound_of(a, b)
        return None if name in a.metrics and name in b.metrics else f"A and B do not both have {name}"
    if a.verdicts is None or b.verdicts is None:
        return "A and B do not both have per-example verdicts"
    if a.verdicts.n != b.verdicts.n:
        return f"{a.verdicts.n:,} examples in A, {b.verdicts.n:,} in B"
    return None if a.verdicts.n else "no examples"


def _bound_of(a: Record, b: Record) -> str:
    """The metric that generative models are compared by: test bits per dimension; of autoencoders, the distortion."""
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
    # All attacks on one model share its clean verdicts, so they are tested once.
    model = {key: value for key, value in a.cell.items() if key not in ATTACKING}
    key = canonical([model, a.verdicts.clean, b.verdicts.clean])
    if key not in clean_seen:
        clean_seen.add(key)
        yield paired("clean accuracy", clean_a, clean_b, names.trained(a.cell))


def paired(metric: str, a: np.ndarray, b: np.ndarray, label: str) -> Test:
    """McNemar's exact test of verdicts (n,) before and after, with the difference and its interval as text."""
    losses, gains, n = int((a & ~b).sum()), int((~a & b).sum()), len(a)
    difference, low, high = paired_difference_interval(losses, gains, n)
    change = (
        f"{percent(a.mean())} → {percent(b.mean())}, {change_in_points(difference, low, high)}, "
        f"{losses:,} lost and {gains:,} gained of {n:,}"
    )
    return Test(label, metric, change, mcnemar_exact(losses, gains), losses > gains, losses + gains, n)


def _bits(name: str, a: Metric, b: Metric, label: str) -> Test:
    error_a, error_b = _standard_error(a), _standard_error(b)
    difference, half = b.value - a.value, normal_quantile() * float(np.hypot(error_a, error_b))
    change = (
        f"{bits(a.value)} → {bits(b.value)}, {difference:+.3f} [{difference - half:+.3f}, {difference + half:+.3f}]"
        " bits per dimension, lower is better"
    )
    return Test(label, name, change, difference_test(a.value, error_a, b.value, error_b), difference > 0)


def _standard_error(metric: Metric) -> float:
    if metric.low is None or metric.high is None:
        return 0.0
    return (metric.high - metric.low) / (2 * normal_quantile())


def _verdict(test: Test, adjusted: float) -> Verdict:
    if adjusted >= ALPHA:
        return "no difference"
    return "worse" if test.worsened else "better"


def _line(test: Test, adjusted: float, family: int) -> str:
    line = f"{test.metric}: {test.change}, p {p_value(test.p)}, {p_value(adjusted)} after Holm"
    if test.changed is not None and test.n is not None:
        # At the level of Holm's first step, the strictest, so that it holds for every one of the tests.
        smallest = smallest_detectable_difference(test.changed, test.n, ALPHA / family)
        line += f", smallest detectable difference {100 * smallest:.1f} points"
    line += f"; code changed: {test.code}" if test.code else ""
    return f"{line}  [{test.cell}]"


def _cases(
    tests: Sequence[Test], adjusted: Sequence[float], verdicts: Sequence[Verdict], skipped: Sequence[Skipped]
) -> Iterator[Case]:
    for test, p, verdict in zip(tests, adjusted, verdicts, strict=True):
        message = f"{verdict}: {_line(test, p, len(tests))}"
        yield Case("compare", f"{test.metric} [{test.cell}]", OUTCOMES[verdict], message)
    for skip in skipped:
        yield Case("compare", f"[{skip.cell}]", "error", f"not compared: {skip.why}")


def _summary(verdicts: Sequence[Verdict], skipped: Sequence[Skipped], tests: int) -> str:
    if not tests and not skipped:
        return "not comparable: A has no measured cell"
    if not tests:
        return f"not comparable: no measured cell of A can be compared with B ({plural(len(skipped), 'cell')})"
    worse, better = verdicts.count("worse"), verdicts.count("better")
    total = f"{plural(tests, 'test')}: {worse} significantly worse, {better} significantly better"
    total += f", {tests - worse - better} no difference"
    total += f" (level {100 * ALPHA:.0f} % for all tests together; detectable means detected with 80 % power)"
    return total + (f"; {plural(len(skipped), 'cell')} not compared" if skipped else "")
