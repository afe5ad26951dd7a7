"""The leaderboard: every model under every attack at every ε, and the worst case over attacks, image by image."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.results.apart import SHOWN
from epsbench.harness.report.results.cells import AttackKey, attack_key, numbers, way
from epsbench.harness.report.results.differences import differences
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import and_list, data_name, distinct, norm_name, scalar
from epsbench.harness.report.robustness.scores import (
    STATE_NAMES,
    Score,
    State,
    over_seeds,
    score_of,
    worst_case,
)
from epsbench.harness.statistics import wilson

OTHER_WEIGHTS = (
    "its cells have different weights or examples: delete its records and run again, several suites with one "
    "--weights-folder"
)
SHOWN_IN_COLUMNS = SHOWN | {"augmentation"}


@dataclass(frozen=True)
class Row:
    """One way of training, in one threat model."""

    model: str
    """The label of the model."""
    defense: str
    """The label of the defense, or ``"none"``."""
    augmentation: str
    """The name of the augmentation, or ``"none"``."""
    extra: str
    """What else distinguishes its training from that of other rows; empty where nothing does."""
    seeds: tuple[Any, ...]
    """The seeds that its scores are over."""
    clean: Score
    """The accuracy without an attack."""
    attacks: Mapping[tuple[Fraction, AttackKey], Score]
    """The robust accuracy, by ε and attack."""
    worst: Mapping[Fraction, Score]
    """The share of images that are robust under every attack, by ε."""
    records: tuple[Record, ...]
    """The records behind the scores."""
    rank: int | None = None
    """Its place on the board, from 1; None where its worst case is missing or only a bound."""

    @cached_property
    def measured(self) -> Mapping[Fraction, list[Record]]:
        """The records that have verdicts, by ε: sorted once, because sentences ask for every ε."""
        groups: dict[Fraction, list[Record]] = defaultdict(list)
        for record in self.records:
            if record.status == "ok" and record.verdicts is not None and record.verdicts.n:
                groups[Fraction(record.cell["eps"])].append(record)
        return dict(groups)

    @property
    def label(self) -> str:
        """``"resnet18 + pgd-batch(steps=7) + crop-flip"``; what is "none" is left out."""
        parts = [self.model, *(part for part in (self.defense, self.augmentation) if part != "none")]
        return " + ".join(parts) + (f" ({self.extra})" if self.extra else "")


@dataclass(frozen=True)
class Board:
    """The leaderboard of one data set and norm."""

    data: str
    """The data set."""
    norm: str
    """The name of the norm, as in a suite."""
    eps: tuple[tuple[Fraction, str], ...]
    """Every ε with its spelling in the suite, ascending."""
    attacks: Mapping[Fraction, tuple[AttackKey, ...]]
    """The attacks at each ε, ordered by effort."""
    rows: tuple[Row, ...]
    """The models, the most robust first."""
    labels: Mapping[AttackKey, str] = field(default_factory=dict)
    """The label of each attack for tables, figures and sentences, ordered by effort; no two are equal."""
    efforts: Mapping[AttackKey, float] = field(default_factory=dict)
    """The `effort` of each attack."""
    curves: frozenset[str] = frozenset()
    """The kinds of its curves over ε: ``"each"``, ``"nested"``, ``"bisect"``."""
    transferred: bool = False
    """Whether its models were also tested on images made on other models; the transfer tables show those."""
    shared: Fraction | None = None
    """The largest ε at which every row has a cell; None where there is none."""

    @property
    def ranked(self) -> tuple[Fraction, str]:
        """The ε at which the worst case decides the ranks: the largest that all rows share, else the largest."""
        return next((eps for eps in self.eps if eps[0] == self.shared), self.eps[-1])

    @property
    def where(self) -> str:
        """``"mnist at L∞ ε = 0.3"``: where the ranks are decided."""
        return f"{self.data} at {norm_name(self.norm)} ε = {self.ranked[1]}"

    def eps_of(self, attack: AttackKey) -> list[tuple[Fraction, str]]:
        """The ε at which any row has a cell of this attack."""
        return [(eps, spelled) for eps, spelled in self.eps if attack in self.attacks[eps]]

    @property
    def examples(self) -> int | None:
        """The number of test images behind a score, where it is the same in every row."""
        counts = {row.clean.n for row in self.rows if row.clean.n is not None}
        return counts.pop() if len(counts) == 1 else None


def boards(results: Results) -> list[Board]:
    """One leaderboard for every data set and norm, in the order of the records."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in results.robustness:
        groups[data_name(record.cell["data"]), record.cell["norm"]].append(record)
    return [_board(data, norm, records, results) for (data, norm), records in groups.items()]


def rank(rows: Iterable[Row], eps: Fraction) -> list[Row]:
    """Rows by their worst case at ``eps``, the most robust first.

    A row's rank is one more than the number of rows whose interval lies wholly above its own, so rows whose intervals
    overlap can share a rank. Rows whose worst case is missing or only a bound come last, without a rank.
    """

    def complete(row: Row) -> bool:
        score = row.worst.get(eps)
        return score is not None and score.state == "ok" and not score.note

    def value(row: Row) -> float:
        score = row.worst.get(eps)
        return -1.0 if score is None or score.value is None else score.value

    ordered = sorted(rows, key=lambda row: (not complete(row), -value(row)))
    lows = sorted(row.worst[eps].low or 0.0 for row in ordered if complete(row))
    return [
        replace(row, rank=1 + len(lows) - bisect_right(lows, row.worst[eps].high or 0.0)) if complete(row) else row
        for row in ordered
    ]


def measured_gradients(records: Iterable[Record]) -> float | None:
    """The most gradients for an image that one of an attack's cells took; None where none was measured."""
    measured = numbers((record.cost for record in records if record.status == "ok"), "gradients_per_image")
    return max(measured, default=None)


def effort(records: Sequence[Record]) -> float:
    """What attacks are ordered by: `measured_gradients`; 0 for noise.

    Only where no cell was measured it is steps times restarts. That is a bound, so no table shows it.
    """
    if (measured := measured_gradients(records)) is not None:
        return measured
    attack = records[0].cell["attack"]
    counts = [attack.get("steps", 0), attack.get("restarts", 1)]
    return float(math.prod(count for count in counts if isinstance(count, int)))


def _board(data: str, norm: str, records: list[Record], results: Results) -> Board:
    ways: dict[str, list[Record]] = defaultdict(list)
    spelled: dict[Fraction, str] = {}
    by_attack: dict[AttackKey, list[Record]] = defaultdict(list)
    for record in records:
        cell = record.cell
        ways[canonical(way(cell))].append(record)
        eps = Fraction(cell["eps"])
        spelled.setdefault(eps, scalar(cell["eps"]))
        by_attack[attack_key(cell)].append(record)
    efforts = {attack: effort(group) for attack, group in by_attack.items()}
    names = {attack: results.names.attack(group[0].cell) for attack, group in by_attack.items()}
    ordered = sorted(names, key=lambda attack: (efforts[attack], names[attack]))
    labels = dict(zip(ordered, distinct([names[attack] for attack in ordered]), strict=True))
    measured = {attack: {Fraction(record.cell["eps"]) for record in by_attack[attack]} for attack in ordered}
    eps_ascending = sorted(spelled)
    by_eps = {eps: tuple(attack for attack in ordered if eps in measured[attack]) for eps in eps_ascending}
    extras = differences([group[0] for group in ways.values()], SHOWN_IN_COLUMNS)
    rows = [_row(group, extra, by_eps, labels, results) for group, extra in zip(ways.values(), extras, strict=True)]
    shared = set.intersection(*({Fraction(record.cell["eps"]) for record in row.records} for row in rows))
    at = max(shared, default=eps_ascending[-1])
    return Board(
        data,
        norm,
        tuple((eps, spelled[eps]) for eps in eps_ascending),
        by_eps,
        tuple(rank(rows, at)),
        labels,
        efforts,
        frozenset(record.cell.get("curve", "each") for record in records),
        any((data_name(record.cell["data"]), record.cell["norm"]) == (data, norm) for record in results.transfer),
        max(shared, default=None),
    )


def seed_rows(board: Board, row: Row, results: Results) -> dict[Any, Row]:
    """A row of a board for each of its seeds alone, by seed."""
    return {
        seed: _row(
            [record for record in row.records if record.cell["seed"] == seed], row.extra, board.attacks, board.labels,
            results,
        )
        for seed in row.seeds
    }  # fmt: skip


def _row(
    records: list[Record],
    extra: str,
    by_eps: Mapping[Fraction, tuple[AttackKey, ...]],
    labels: Mapping[AttackKey, str],
    results: Results,
) -> Row:
    cell, names = records[0].cell, results.names
    seeds: dict[str, dict[tuple[Fraction, AttackKey], Record]] = defaultdict(dict)
    for record in records:
        key = Fraction(record.cell["eps"]), attack_key(record.cell)
        seeds[canonical(record.cell["seed"])][key] = record
    return Row(
        names.label("model", cell["model"]),
        names.label("defense", cell["defense"]),
        scalar(cell["augmentation"]),
        extra,
        tuple(dict.fromkeys(record.cell["seed"] for record in records)),
        over_seeds([_clean(list(cells.values())) for cells in seeds.values()]),
        {
            (eps, attack): over_seeds([score_of(cells.get((eps, attack))) for cells in seeds.values()])
            for eps, expected in by_eps.items()
            for attack in expected
        },
        {
            eps: over_seeds(
                [_worst({attack: cells.get((eps, attack)) for attack in expected}, labels) for cells in seeds.values()]
            )
            for eps, expected in by_eps.items()
        },
        tuple(records),
    )


def _clean(records: list[Record]) -> Score:
    measured = [score for record in records if (score := score_of(record, "clean_accuracy")).value is not None]
    return measured[0] if measured else score_of(records[0], "clean_accuracy")


def _worst(cells: Mapping[AttackKey, Record | None], labels: Mapping[AttackKey, str]) -> Score:
    """The worst case over the attacks of one ε and one seed; where an attack is missing, it is an upper bound.

    Attacks with equal parameters are the same attack with another kind of ε curve or without early stopping; one of
    them is enough. ``labels`` are for the note.
    """
    robust_by_attack: list[np.ndarray] = []
    weights: set[str] = set()
    lacking: dict[AttackKey, State] = {}
    for attack, record in cells.items():
        score = score_of(record)
        if record is None or score.state != "ok" or record.verdicts is None:
            lacking[attack] = "missing" if score.state == "ok" else score.state
            continue
        robust_by_attack.append(record.verdicts.unpack()[1])
        weights.add(str(record.training.get("weights_sha256", "")))
    if not robust_by_attack:
        return Score(next((state for state in ("failed", "void") if state in lacking.values()), "missing"))
    if len(weights) > 1 or len({len(robust) for robust in robust_by_attack}) > 1:
        return Score("missing", note=OTHER_WEIGHTS)
    measured = {attack.entry for attack in cells if attack not in lacking}
    lacking = {attack: state for attack, state in lacking.items() if state != "missing" or attack.entry not in measured}
    robust = worst_case(robust_by_attack)
    right, n = int(robust.sum()), len(robust)
    low, high = wilson(right, n)
    without = [f"{labels[attack]} ({STATE_NAMES[state]})" for attack, state in lacking.items()]
    note = f"without {and_list(without)}" if without else ""
    return Score("ok", right / n if n else None, low, high, n, bound=bool(without), note=note)
