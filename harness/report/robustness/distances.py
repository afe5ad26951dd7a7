"""Smallest adversarial distances: their distribution, and verdicts at radii that were not asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from epsbench.harness.errors import InputError
from epsbench.harness.plan.epsilon import format_epsilon
from epsbench.harness.records import Metric, Record, Verdicts, within
from epsbench.harness.records.predictions import Predictions
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.drawing.table import NEEDED, Column, Entry, Table, fold
from epsbench.harness.report.results.apart import SETTING, settings_by_cell
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import ABSENT, data_name, defense_name, norm_name, number, percent, scalar
from epsbench.harness.statistics import share_with_interval

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
CAPTION = (
    "The distance of the nearest image that fools the model, over the test images that are classified correctly "
    "without an attack. Not reached: the share for which the attack knows no such image; it counts as infinitely far."
)
FOLDED = frozenset({"data", SETTING, "seed"})


@dataclass(frozen=True)
class Measured:
    """One attack on one model, whatever ε its cells have."""

    label: str
    """The model, the attack and its norm."""
    setting: str
    """What sets the model's training apart from that of others with its name, as `settings_by_cell` has it."""
    record: Record
    """One of its records."""
    distances: np.ndarray
    """Of the images that are classified correctly without an attack, ascending; ∞ where none was reached."""
    images: int
    """The number of test images."""


def measured(results: Results) -> list[Measured]:
    """Every run that looked for the smallest distance, once, in the order of the records."""
    runs: dict[str, Measured] = {}
    setting = settings_by_cell(results.robustness)
    for record in results.robustness:
        if record.status != "ok" or record.distances is None or record.verdicts is None:
            continue
        distances, clean = record.distances.unpack(), record.verdicts.unpack()[0]
        cell, names = record.cell, results.names
        model = " + ".join(text for kind in ("model", "defense") if (text := names.label(kind, cell[kind])) != "none")
        extra = setting(cell)
        model += f" ({extra})" if extra != ABSENT else ""
        label = f"{model}, {names.attack(cell)} {norm_name(cell['norm'])}"
        key = _but_for_eps(record)
        # Of several ε the largest: its predictions know the adversarial classes of the most images.
        if key not in runs or Fraction(runs[key].record.cell["eps"]) < Fraction(cell["eps"]):
            runs[key] = Measured(label, extra, record, np.sort(distances[clean]), len(clean))
    return list(runs.values())


def distances_table(results: Results) -> Table | None:
    """The median and other quantiles of every run's distances; None where there is no such run."""
    runs = measured(results)
    if not runs:
        return None
    columns = (
        *(Column(title, label=title != "data") for title in ("data", "model", "defense")),
        Column(SETTING, weight=NEEDED),
        Column("attack", label=True),
        Column("seed"),
        *(Column("median" if share == 0.5 else f"{100 * share:.0f} %", True) for share in QUANTILES),
        Column("not reached", True),
    )
    lines = []
    for run in runs:
        cell, names = run.record.cell, results.names
        lines.append(
            (
                Entry(data_name(cell["data"])),
                Entry(names.label("model", cell["model"])),
                Entry(defense_name(names.label("defense", cell["defense"]))),
                Entry(run.setting),
                Entry(f"{names.attack(cell)} {norm_name(cell['norm'])}"),
                Entry(scalar(cell["seed"])),
                *(_quantile(run.distances, share) for share in QUANTILES),
                Entry(percent(float(np.isinf(run.distances).mean())) if len(run.distances) else ABSENT),
            )
        )
    return fold(Table("Smallest adversarial distances", columns, tuple(lines), CAPTION), FOLDED)


def _quantile(distances: np.ndarray, share: float) -> Entry:
    """The distance below which this share of the images is fooled; a measured one, never between two."""
    if not len(distances):
        return Entry(ABSENT)
    value = float(np.quantile(distances, share, method="inverted_cdf"))
    return Entry("∞" if np.isinf(value) else number(value))


def only_at(results: Results, eps: Sequence[Fraction]) -> Results:
    """The results at these radii alone. Verdicts at a radius without a cell follow from the recorded distances.

    Raises `InputError` for a radius at which no record answers.
    """
    wanted = set(eps)
    kept = [record for record in results.current if Fraction(str(record.cell.get("eps", -1))) in wanted]
    there = {(_but_for_eps(record), Fraction(record.cell["eps"])) for record in kept}
    derived = [
        at_radius(run.record, each)
        for run in measured(results)
        for each in sorted(wanted)
        if (_but_for_eps(run.record), each) not in there
    ]
    answered = {Fraction(record.cell["eps"]) for record in (*kept, *derived)}
    if missing := wanted - answered:
        raise InputError(
            f"--at-eps: no record answers at {', '.join(map(format_epsilon, sorted(missing)))}; only attacks that look "
            "for the smallest distance, such as ddn, answer a radius that was not measured"
        )
    homes = dict(results.homes) | {record.id: results.folder for record in derived}
    return replace(results, current=(*kept, *derived), superseded=(), homes=homes)


def at_radius(record: Record, eps: Fraction) -> Record:
    """The record with the verdicts that its distances give at another ε. What the run cost stays the same."""
    assert record.distances is not None
    assert record.verdicts is not None
    clean = record.verdicts.unpack()[0]
    robust = clean & ~within(record.distances.unpack(), float(eps))
    cell = record.cell | {"eps": format_epsilon(eps)}
    metrics = record.metrics | {"robust_accuracy": _share(robust), "attack_success_rate": _share(~robust[clean])}
    if not clean.any():
        metrics.pop("attack_success_rate")
    changed: dict[str, Any] = {
        "id": hashlib.sha256(f"{record.id} {cell['eps']}".encode()).hexdigest()[:16],
        "cell": cell,
        "metrics": metrics,
        "verdicts": Verdicts.pack(clean, robust),
        "predictions": _predictions_at(record, clean, robust),
        "pictures": False,  # they show another ε
    }
    return record.model_copy(update=changed)


def _predictions_at(record: Record, clean: np.ndarray, robust: np.ndarray) -> Predictions | None:
    """What the judge answers at another ε; None where that is not known of an image that is fooled there only.

    The nearest image that fools the model is the same at every ε. Where it lies beyond ε, the image is left as it is.
    """
    if record.predictions is None or record.verdicts is None:
        return None
    answers, before = record.predictions.unpack(), record.verdicts.unpack()[1]
    if (clean & ~robust & before).any():
        return None
    adversarial = np.where(robust, answers.clean, answers.adversarial)
    confidence = np.where(robust, answers.clean_confidence, answers.adversarial_confidence)
    changed = answers._replace(adversarial=adversarial, adversarial_confidence=confidence)
    return Predictions.pack(changed, record.predictions.classes)


def _share(bits: np.ndarray) -> Metric:
    if not len(bits):
        return Metric(value=0.0, n=0)
    value, low, high = share_with_interval(bits)
    return Metric(value=value, low=low, high=high, n=len(bits))


def _but_for_eps(record: Record) -> str:
    without = {key: value for key, value in record.cell.items() if key not in ("eps", "curve", "curve_eps")}
    return canonical([without, record.training.get("weights_sha256")])


def curves(runs: Iterable[Measured]) -> list[tuple[str, list[float], list[float]]]:
    """Label, distances and robust accuracy of every run: a step down at each distance that was reached."""
    drawn = []
    for run in runs:
        reached = run.distances[np.isfinite(run.distances)].tolist()
        heights = [(len(run.distances) - k) / max(1, run.images) for k in range(len(reached) + 1)]
        drawn.append((run.label, [0.0, *reached], heights))
    return drawn
