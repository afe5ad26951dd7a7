"""Shares of test images classified correctly: of one record, over seeds, and in the worst case over attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Literal

import numpy as np

from epsbench.harness.records import Record
from epsbench.harness.report.drawing.table import Entry
from epsbench.harness.report.results.units import percent, percent_range, plural
from epsbench.harness.statistics import interval_over_seeds

State = Literal["ok", "failed", "void", "missing"]
STATE_NAMES: dict[State, str] = {"ok": "ok", "failed": "failed", "void": "void", "missing": "not measured"}


@dataclass(frozen=True)
class Score:
    """One number of the leaderboard, or the reason why there is none."""

    state: State
    """``"ok"`` where there is a number."""
    value: float | None = None
    """A share in [0, 1]; over several seeds, the mean."""
    low: float | None = None
    """The lower end of the 95 % interval: Wilson's over images, Student's t over seeds."""
    high: float | None = None
    """The upper end of the interval."""
    n: int | None = None
    """The number of test images."""
    seeds: int = 1
    """The number of seeds that the value is the mean of."""
    bound: bool = False
    """Whether the value is only an upper bound, because the result of an attack is missing."""
    note: str = ""
    """What a reader must know about the number; a score with a note gets no rank."""
    sd: float | None = None
    """The sample standard deviation over seeds."""


def score_of(record: Record | None, metric: str = "robust_accuracy") -> Score:
    """A record's share with its interval, or the reason why there is none."""
    if record is None:
        return Score("missing")
    if record.status != "ok":
        return Score(record.status)
    if metric not in record.metrics:
        return Score("missing")
    measured = record.metrics[metric]
    return Score("ok", measured.value, measured.low, measured.high, measured.n)


def worst_case(robust: Sequence[np.ndarray]) -> np.ndarray:
    """Which examples are robust under every attack: the AND of boolean arrays of shape (n,)."""
    return np.logical_and.reduce(robust)


def over_seeds(scores: Sequence[Score]) -> Score:
    """The scores of one cell under several seeds as one: their mean with its Student-t interval.

    Where all seeds give the same number, the interval is that of one seed, over images. Seeds without a number are left
    out of the mean, and the note counts them.
    """
    if len(scores) == 1:
        return scores[0]
    measured = [score for score in scores if score.value is not None]
    lacking = [score for score in scores if score.value is None]
    if not measured:
        return next(score for state in ("failed", "void", "missing") for score in scores if score.state == state)
    notes = [f"seed {STATE_NAMES[score.state]}" for score in lacking]
    notes += [note for note in dict.fromkeys(score.note for score in measured) if note]
    note = "; ".join(
        ([f"{len(measured)} of {plural(len(scores), 'seed')}"] if lacking else []) + list(dict.fromkeys(notes))
    )
    bound = any(score.bound for score in measured)
    if len(measured) == 1:
        return replace(measured[0], note=note, bound=bound)
    values = [score.value for score in measured if score.value is not None]
    mean, low, high = interval_over_seeds(values, (measured[0].low, measured[0].high))
    return Score("ok", mean, max(0.0, low), min(1.0, high), measured[0].n, len(measured), bound, note, stdev(values))


def score_entry(score: Score | None) -> Entry:
    """A score as ``93.0 % [92.5, 93.5]``, as ``≤ 12.0 %`` where it is a bound, or as its state."""
    if score is None:
        return Entry(STATE_NAMES["missing"], state="missing")
    if score.value is None:
        return Entry(STATE_NAMES[score.state], "", score.note, score.state)
    text = ("≤ " if score.bound else "") + percent(score.value)
    note = "; ".join(filter(None, [_seeds(score), score.note]))
    spread = "" if score.sd is None else f"±{100 * score.sd:.1f}"
    detail = f"{spread} {percent_range(score.low, score.high)}".strip()
    return Entry(text, detail, note, "warning" if score.note else "")


def _seeds(score: Score) -> str:
    if score.seeds < 2:
        return ""
    return f"{score.seeds} seeds" + (f", sd {100 * score.sd:.1f}" if score.sd is not None else "")
