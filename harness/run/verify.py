"""Measures a sample of recorded cells again and compares."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epsbench.harness.files import temporary_folder
from epsbench.harness.options import Options
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import Record, read_record, record_path
from epsbench.harness.run.robustness.record import SOURCE_WEIGHTS
from epsbench.harness.run.runner import run_suite

SAME, DIFFERENT, NOTHING_RECORDED = 0, 1, 2
_SEED = 0  # the same sample every time, so that two verifications can be compared


@dataclass(frozen=True)
class Comparison:
    """One cell, measured twice."""

    same: bool
    """Whether all that is compared is equal."""

    line: str
    """For the user: the cell and what changed."""


def verify(suite: Suite, results: Path, options: Options, sample: int, report_line: Callable[[str], None]) -> int:
    """Measure ``sample`` of a suite's recorded cells again and compare. ``report_line`` gets a line for each cell.

    Returns 0 when all are the same, 1 when one is not, 2 when none is recorded. Weights come from the cache and are
    trained where it lacks them; with another folder as ``options.weights`` all are trained again. Records and
    pictures go to a temporary folder. Raises `InputError` as `run_suite` does.
    """
    recorded = plan(suite, results).done
    done = [cell for cell in suite.cells if cell.id in recorded]
    if not done:
        report_line(f"{results}: nothing of this suite is recorded, so nothing to verify; run it first")
        return NOTHING_RECORDED
    chosen = random.Random(_SEED).sample(done, min(sample, len(done)))
    records = {cell.id: read_record(record_path(results, cell.id)) for cell in chosen}
    with temporary_folder("epsbench-verify-", "--verify") as folder:
        again = Path(folder)
        weights = options.weights or results / "weights"
        run_suite(
            replace(suite, cells=tuple(_with_their_curves(chosen, suite)), expectations=()),
            again,
            replace(options, weights=weights, profile=False, executor="local"),
        )
        compared = [_compare(cell, records[cell.id], again) for cell in chosen]
    for each in compared:
        report_line(each.line)
    same = sum(each.same for each in compared)
    report_line(f"{same} of {len(compared)} cells are the same ({len(done)} are recorded)")
    return SAME if same == len(compared) else DIFFERENT


def _with_their_curves(chosen: list[Cell], suite: Suite) -> Iterator[Cell]:
    """The chosen cells and, where the ε of a curve depend on each other, the curve's other cells; in suite order."""
    curves = {(cell.weights_key, cell.stream) for cell in chosen if isinstance(cell, RobustnessCell) and cell.curve_eps}
    wanted = {cell.id for cell in chosen}
    for cell in suite.cells:
        on_curve = isinstance(cell, RobustnessCell) and (cell.weights_key, cell.stream) in curves
        if cell.id in wanted or on_curve:
            yield cell


def _compare(cell: Cell, before: Record, results: Path) -> Comparison:
    path = record_path(results, cell.id)
    if not path.is_file():
        return Comparison(False, f"not measured  {cell.label()}: the run was stopped")
    after = read_record(path)
    if after.status != "ok":
        return Comparison(False, f"{after.status:<12}  {cell.label()}: {' '.join(after.why.split())}")
    changes = [change for change in (_verdicts(before, after), *_bits(before, after)) if change]
    if not changes:
        return Comparison(True, f"{'identical':<12}  {cell.label()}")
    return Comparison(False, f"{'changed':<12}  {cell.label()}: {'; '.join([*changes, *_causes(before, after)])}")


def _verdicts(before: Record, after: Record) -> str:
    if before.verdicts is None or after.verdicts is None:
        return "" if before.verdicts == after.verdicts else "verdicts on one side only"
    if before.verdicts.n != after.verdicts.n:
        return f"{before.verdicts.n:,} examples before, {after.verdicts.n:,} now"
    (clean, robust), (clean_now, robust_now) = before.verdicts.unpack(), after.verdicts.unpack()
    changed = int(((clean != clean_now) | (robust != robust_now)).sum())
    return f"{changed:,} of {len(clean):,} verdicts" if changed else ""


def _bits(before: Record, after: Record) -> Iterator[str]:
    """Every likelihood bound, or part of one, that changed."""
    for name in {**before.metrics, **after.metrics}:
        old, new = before.metrics.get(name), after.metrics.get(name)
        if not name.endswith("_bpd"):
            continue
        if old is None or new is None:
            yield f"{name} on one side only"
        elif old.value != new.value:
            yield f"{name} {old.value:.6f}, now {new.value:.6f}"


def _causes(before: Record, after: Record) -> Iterator[str]:
    """What else changed since the record was made and may be the cause."""
    if before.training.get("weights_sha256") != after.training.get("weights_sha256"):
        yield "the weights differ"
    if before.evaluation.get(SOURCE_WEIGHTS) != after.evaluation.get(SOURCE_WEIGHTS):
        yield "the weights of the source differ"
    for name in ("packages", "device", "threads", "flags"):
        old, new = before.environment.get(name), after.environment.get(name)
        if old != new:
            yield f"{name} differ: {_differing(old, new)}"
    # Older records of classifiers do not name their form: there was only one.
    if (old := before.training.get("form")) and old != (new := after.training.get("form")):
        yield f"form of training {old}, now {new}"
    for key in ("precision", "batch_size", "form"):
        if before.cost.get(key) != after.cost.get(key):
            yield f"{key} {before.cost.get(key)}, now {after.cost.get(key)}"
    if reasons := after.environment.get("not_deterministic"):
        yield f"not deterministic: {', '.join(reasons)}"


def _differing(old: Any, new: Any) -> str:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f"{old}, now {new}"
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key)}, now {new.get(key)}" for key in keys)
