"""The verdicts of a leaderboard's row, image by image and by seed, for paired comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction
from statistics import mean
from typing import Any

import numpy as np

from epsbench.harness.records import Record
from epsbench.harness.report.results.units import points
from epsbench.harness.report.robustness.leaderboard import Row, effort
from epsbench.harness.report.robustness.scores import worst_case
from epsbench.harness.statistics import mean_interval, paired_difference_interval

Bits = Mapping[Any, np.ndarray]
"""Verdicts (n,) by seed: True where an image is classified correctly."""


def difference(before: Bits, after: Bits) -> str | None:
    """The change of the share of correct verdicts over the seeds that both have: ``"-1.2 points [-1.5, -0.9]"``.

    The 95 % interval is paired over images for one seed, and Student's t over several. None where no seed has
    verdicts on the same images in both.
    """
    seeds = [seed for seed in before if seed in after and len(before[seed]) == len(after[seed]) > 0]
    if not seeds:
        return None
    if len(seeds) == 1:
        old, new = before[seeds[0]], after[seeds[0]]
        losses, gains = int((old & ~new).sum()), int((~old & new).sum())
        value, low, high = paired_difference_interval(losses, gains, len(old))
    else:
        value, low, high = mean_interval([float(after[seed].mean() - before[seed].mean()) for seed in seeds])
    return f"{points(value)} points [{points(low)}, {points(high)}]"


def clean(row: Row) -> Bits:
    """Verdicts without an attack."""
    return {seed: _verdicts(records[0])[0] for seed, records in _measured(row).items()}


def under_attack(row: Row, eps: Fraction, name: str, gradients: int | None = None) -> Bits:
    """Verdicts under the first attack of this name at this ε; with ``gradients``, under one of this effort."""
    bits: dict[Any, np.ndarray] = {}
    for record in records_at(row, eps):
        attack = record.cell["attack"]
        if attack["name"] == name and gradients in (None, effort(attack)):
            bits.setdefault(record.cell["seed"], _verdicts(record)[1])
    return bits


def worst(row: Row, eps: Fraction) -> Bits:
    """Verdicts in the worst case over attacks; empty where it is missing or only a bound."""
    score = row.worst.get(eps)
    if score is None or score.value is None or score.note:
        return {}
    at = {seed: [r for r in group if Fraction(r.cell["eps"]) == eps] for seed, group in _measured(row).items()}
    return {seed: worst_case([_verdicts(record)[1] for record in group]) for seed, group in at.items() if group}


def records_at(row: Row, eps: Fraction) -> list[Record]:
    """The row's records at an ε that have verdicts."""
    return [record for group in _measured(row).values() for record in group if Fraction(record.cell["eps"]) == eps]


def share(bits: Bits) -> float:
    """The share of correct verdicts in [0, 1], averaged over seeds."""
    return mean(float(verdicts.mean()) for verdicts in bits.values())


def _measured(row: Row) -> dict[Any, list[Record]]:
    """The records that have verdicts, by seed."""
    groups: dict[Any, list[Record]] = defaultdict(list)
    for record in row.records:
        if record.status == "ok" and record.verdicts is not None and record.verdicts.n:
            groups[record.cell["seed"]].append(record)
    return groups


def _verdicts(record: Record) -> tuple[np.ndarray, np.ndarray]:
    assert record.verdicts is not None  # `_measured` returns only records that have them
    return record.verdicts.unpack()
