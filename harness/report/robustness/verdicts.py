"""The verdicts of a leaderboard's row, image by image and by seed, for paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import mean
from typing import Any

import numpy as np

from epsbench.harness.records import Record
from epsbench.harness.report.results.cells import AttackKey, attack_key
from epsbench.harness.report.results.units import change_in_points
from epsbench.harness.report.robustness.leaderboard import Row
from epsbench.harness.report.robustness.scores import worst_case
from epsbench.harness.statistics import interval_over_seeds, paired_difference_interval

Bits = Mapping[Any, np.ndarray]
"""Verdicts (n,) by seed: True where an image is classified correctly."""


def difference(before: Bits, after: Bits) -> str | None:
    """The change of the share of correct verdicts, ``"-1.2 points [-1.5, -0.9]"`` (see `difference_interval`)."""
    interval = difference_interval(before, after)
    return None if interval is None else change_in_points(*interval)


def difference_interval(before: Bits, after: Bits) -> tuple[float, float, float] | None:
    """The change of the share of correct verdicts over the seeds that both have: (value, low, high), shares in [-1, 1].

    The 95 % interval is paired over images for one seed, and Student's t over several, unless all give the same
    change. None where no seed has verdicts on the same images in both.
    """
    seeds = [seed for seed in before if seed in after and len(before[seed]) == len(after[seed]) > 0]
    if not seeds:
        return None
    old, new = before[seeds[0]], after[seeds[0]]
    _, *paired = paired_difference_interval(int((old & ~new).sum()), int((~old & new).sum()), len(old))
    changes = [float(after[seed].mean() - before[seed].mean()) for seed in seeds]
    return interval_over_seeds(changes, (paired[0], paired[1]))


def clean(row: Row) -> Bits:
    """Verdicts without an attack."""
    first: dict[Any, Record] = {}
    for records in row.measured.values():
        for record in records:
            first.setdefault(record.cell["seed"], record)
    return {seed: _verdicts(record)[0] for seed, record in first.items()}


def under_attack(row: Row, eps: Fraction, attack: AttackKey) -> Bits:
    """Verdicts under this attack at this ε."""
    records = [record for record in records_at(row, eps) if attack_key(record.cell) == attack]
    return {record.cell["seed"]: _verdicts(record)[1] for record in records}


def worst(row: Row, eps: Fraction) -> Bits:
    """Verdicts in the worst case over attacks; empty where it is missing or only a bound."""
    score = row.worst.get(eps)
    if score is None or score.value is None or score.note:
        return {}
    by_seed: dict[Any, list[np.ndarray]] = {}
    for record in records_at(row, eps):
        by_seed.setdefault(record.cell["seed"], []).append(_verdicts(record)[1])
    return {seed: worst_case(robust) for seed, robust in by_seed.items()}


def records_at(row: Row, eps: Fraction) -> Sequence[Record]:
    """The row's records at an ε that have verdicts."""
    return row.measured.get(eps, ())


def share(bits: Bits) -> float:
    """The share of correct verdicts in [0, 1], averaged over seeds."""
    return mean(float(verdicts.mean()) for verdicts in bits.values())


def _verdicts(record: Record) -> tuple[np.ndarray, np.ndarray]:
    assert record.verdicts is not None  # `Row.measured` has only records that have them
    return record.verdicts.unpack()
