"""Who stands firm: every model under every attack at every ε, and the worst case over attacks, per example."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from statistics import stdev
from typing import Any, Literal

import numpy as np

from epsbench.harness.records import Record
from epsbench.harness.report.results import ATTACKING, Results, canonical, start_words, way
from epsbench.harness.report.units import enumerate_words, plural, scalar
from epsbench.harness.statistics import mean_interval, wilson

State = Literal["ok", "failed", "void", "missing"]
STATE_NAMES: dict[State, str] = {"ok": "ok", "failed": "failed", "void": "void", "missing": "not measured"}
OTHER_WEIGHTS = (
    "its cells have different weights or examples: delete its records and run again, several suites with one --weights"
)
GOES_UNSAID = {"subset": "all", "start": "scratch"}
"""What a cell that does not say otherwise has there; a label leaves it out."""
SHOWN_IN_COLUMNS = ATTACKING | {"task", "data", "model", "defense", "augmentation", "seed"}


@dataclass(frozen=True)
class Score:
    """One number of the leaderboard, a share in [0, 1] with its 95 % interval, or why there is none.

    ``bound`` is true where the number is only an upper bound, because an attack that should count is lacking;
    ``note`` says what a reader must know, and a score with a note takes no rank. ``sd`` is the sample standard
    deviation over seeds.
    """

    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seeds: int = 1
    bound: bool = False
    note: str = ""
    sd: float | None = None


@dataclass(frozen=True)
class Row:
    """One way of training, in one threat model: its label's parts and its scores."""

    model: str
    defense: str
    augmentation: str
    extra: str
    seeds: tuple[Any, ...]
    clean: Score
    attacks: Mapping[tuple[Fraction, str], Score]
    worst: Mapping[Fraction, Score]
    records: tuple[Record, ...]
    rank: int | None = None

    @property
    def label(self) -> str:
        """``"resnet18 + pgd-batch(steps=7) + crop-flip"``; what is "none" is left out."""
        parts = [self.model, *(part for part in (self.defense, self.augmentation) if part != "none")]
        return " + ".join(parts) + (f" ({self.extra})" if self.extra else "")


@dataclass(frozen=True)
class Board:
    """A leaderboard: one data set, one norm. ``attacks`` are those of the table at each ε, ε ascending;
    ``efforts`` their steps times restarts, and ``curves`` the ways in which their curves over ε came about.
    ``transferred`` says that its models also met images made on other models, which are told elsewhere. ``shared`` is
    the largest ε that every row has a cell at, where there is one."""

    data: str
    norm: str
    eps: tuple[tuple[Fraction, str], ...]
    attacks: Mapping[Fraction, tuple[str, ...]]
    rows: tuple[Row, ...]
    efforts: Mapping[str, int] = field(default_factory=dict)
    curves: frozenset[str] = frozenset()
    transferred: bool = False
    shared: Fraction | None = None

    @property
    def ranked(self) -> tuple[Fraction, str]:
        """The ε whose worst case the rows are ranked by: the largest that all share, else the largest."""
        return next((held for held in self.eps if held[0] == self.shared), self.eps[-1])

    @property
    def names(self) -> list[str]:
        """Every attack of the board, from the weakest effort to the strongest."""
        return sorted(set().union(*self.attacks.values()), key=lambda name: (self.efforts.get(name, 0), name))

    def eps_of(self, attack: str) -> list[tuple[Fraction, str]]:
        """The ε at which any row met an attack."""
        return [(eps, spelled) for eps, spelled in self.eps if attack in self.attacks[eps]]

    @property
    def examples(self) -> int | None:
        """The test images behind a score, where they are the same number in every row."""
        counts = {row.clean.n for row in self.rows if row.clean.n is not None}
        return counts.pop() if len(counts) == 1 else None


def boards(results: Results) -> list[Board]:
    """One leaderboard for every data set and norm, in the order of the records."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in results.robustness:
        groups[record.cell["data"], record.cell["norm"]].append(record)
    return [_board(data, norm, records, results) for (data, norm), records in groups.items()]


def worst_case(robust: Sequence[np.ndarray]) -> np.ndarray:
    """Which examples stand every attack: the AND of boolean arrays of shape (n,)."""
    return np.logical_and.reduce(robust)


def rank(rows: Iterable[Row], eps: Fraction) -> list[Row]:
    """Rows by their worst case at ``eps``, best first. A row's rank is one more than the number of rows whose
    interval lies wholly above its own, so rows that the intervals do not tell apart share a rank. Rows whose
    worst case is lacking or only a bound come last and take none."""

    def complete(row: Row) -> bool:
        score = row.worst.get(eps)
        return score is not None and score.state == "ok" and not score.note

    def value(row: Row) -> float:
        score = row.worst.get(eps)
        return -1.0 if score is None or score.value is None else score.value

    ordered = sorted(rows, key=lambda row: (not complete(row), -value(row)))
    lows = [row.worst[eps].low or 0.0 for row in ordered if complete(row)]
    return [
        replace(row, rank=1 + sum(low > (row.worst[eps].high or 0.0) for low in lows)) if complete(row) else row
        for row in ordered
    ]


def over_seeds(scores: Sequence[Score]) -> Score:
    """Scores of the same cell under several seeds as one: the mean with its Student-t interval.

    A seed that failed does not silently drop out of the mean: the note says so.
    """
    if len(scores) == 1:
        return scores[0]
    held = [score for score in scores if score.value is not None]
    lacking = [score for score in scores if score.value is None]
    if not held:
        return next(score for state in ("failed", "void", "missing") for score in scores if score.state == state)
    notes = [f"seed {STATE_NAMES[score.state]}" for score in lacking]
    notes += [note for note in dict.fromkeys(score.note for score in held) if note]
    note = "; ".join(
        ([f"{len(held)} of {plural(len(scores), 'seed')}"] if lacking else []) + list(dict.fromkeys(notes))
    )
    bound = any(score.bound for score in held)
    if len(held) == 1:
        return replace(held[0], note=note, bound=bound)
    values = [score.value for score in held if score.value is not None]
    mean, low, high = mean_interval(values)
    return Score("ok", mean, max(0.0, low), min(1.0, high), held[0].n, len(held), bound, note, stdev(values))


def effort(attack: Mapping[str, Any]) -> int:
    """Steps times restarts: the order of a table's attacks, from noise, that has none, to the most patient."""
    counts = [attack.get("steps", 0), attack.get("restarts", 1)]
    return math.prod(count for count in counts if isinstance(count, int))


def _board(data: str, norm: str, records: list[Record], results: Results) -> Board:
    ways: dict[str, list[Record]] = defaultdict(list)
    spelled: dict[Fraction, str] = {}
    attacks: dict[Fraction, dict[str, None]] = defaultdict(dict)
    efforts: dict[str, int] = {}
    kinds: dict[str, str] = {}
    for record in records:
        cell = record.cell
        ways[canonical(way(cell))].append(record)
        eps = Fraction(cell["eps"])
        spelled.setdefault(eps, scalar(cell["eps"]))
        attacks[eps][name := results.names.attack(cell)] = None
        efforts[name], kinds[name] = effort(cell["attack"]), canonical(cell["attack"])
    eps_ascending = sorted(spelled)
    by_eps = {eps: tuple(sorted(attacks[eps], key=lambda name: (efforts[name], name))) for eps in eps_ascending}
    told = extras([group[0] for group in ways.values()], SHOWN_IN_COLUMNS)
    rows = [_row(group, extra, by_eps, kinds, results) for group, extra in zip(ways.values(), told, strict=True)]
    shared = set.intersection(*({Fraction(record.cell["eps"]) for record in row.records} for row in rows))
    at = max(shared, default=eps_ascending[-1])
    return Board(
        scalar(data),
        norm,
        tuple((eps, spelled[eps]) for eps in eps_ascending),
        by_eps,
        tuple(rank(rows, at)),
        efforts,
        frozenset(record.cell.get("curve", "each") for record in records),
        any((record.cell["data"], record.cell["norm"]) == (data, norm) for record in results.transfer),
        max(shared, default=None),
    )


def _row(
    records: list[Record],
    extra: str,
    by_eps: Mapping[Fraction, tuple[str, ...]],
    kinds: Mapping[str, str],
    results: Results,
) -> Row:
    cell, names = records[0].cell, results.names
    seeds: dict[str, dict[tuple[Fraction, str], Record]] = defaultdict(dict)
    for record in records:
        key = Fraction(record.cell["eps"]), names.attack(record.cell)
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
                [_worst({attack: cells.get((eps, attack)) for attack in expected}, kinds) for cells in seeds.values()]
            )
            for eps, expected in by_eps.items()
        },
        tuple(records),
    )


def score_of(record: Record | None, metric: str = "robust_accuracy") -> Score:
    """A record's share with its interval, or why there is none."""
    if record is None:
        return Score("missing")
    if record.status != "ok":
        return Score(record.status)
    if metric not in record.metrics:
        return Score("missing")
    held = record.metrics[metric]
    return Score("ok", held.value, held.low, held.high, held.n)


def _clean(records: list[Record]) -> Score:
    measured = [score for record in records if (score := score_of(record, "clean_accuracy")).value is not None]
    return measured[0] if measured else score_of(records[0], "clean_accuracy")


def _worst(cells: Mapping[str, Record | None], kinds: Mapping[str, str]) -> Score:
    """The worst case over the attacks of one ε and one seed; an attack that is lacking makes it an upper bound.

    ``kinds`` says which labels are one attack with curves of different kinds, or with and without early stopping:
    one of them is enough.
    """
    held: list[np.ndarray] = []
    weights: set[str] = set()
    lacking: dict[str, State] = {}
    for attack, record in cells.items():
        score = score_of(record)
        if record is None or score.state != "ok" or record.verdicts is None:
            lacking[attack] = "missing" if score.state == "ok" else score.state
            continue
        held.append(record.verdicts.unpack()[1])
        weights.add(str(record.training.get("weights_sha256", "")))
    if not held:
        return Score(next((state for state in ("failed", "void") if state in lacking.values()), "missing"))
    if len(weights) > 1 or len({len(robust) for robust in held}) > 1:
        return Score("missing", note=OTHER_WEIGHTS)
    measured = {kinds[attack] for attack in cells if attack not in lacking}
    lacking = {attack: why for attack, why in lacking.items() if why != "missing" or kinds[attack] not in measured}
    robust = worst_case(held)
    right, n = int(robust.sum()), len(robust)
    low, high = wilson(right, n)
    without = [f"{attack} ({STATE_NAMES[state]})" for attack, state in lacking.items()]
    note = f"without {enumerate_words(without)}" if without else ""
    return Score("ok", right / n if n else None, low, high, n, bound=bool(without), note=note)


def extras(records: Sequence[Record], shown: frozenset[str]) -> list[str]:
    """For each record, what sets its training and measuring apart from the others, beyond what is ``shown``."""
    flat: list[dict[str, Any]] = []
    for record in records:
        items: dict[str, Any] = {}
        begun = start_words(record.cell) if "start" in record.cell else "scratch"
        for key, value in (GOES_UNSAID | record.cell | {"start": begun}).items():
            if key not in shown:
                items |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        flat.append(items)
    keys = dict.fromkeys(key for items in flat for key in items)
    varying = [key for key in keys if len({canonical(items.get(key)) for items in flat}) > 1]
    told = [
        {key: items[key] for key in varying if key in items and items[key] != GOES_UNSAID.get(key, ...)}
        for items in flat
    ]
    return [", ".join(f"{scalar(key)} {scalar(value)}" for key, value in items.items()) for items in told]
