"""What one choice costs or buys, in words: models of a leaderboard that differ in a single thing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from statistics import mean
from typing import Any

import numpy as np

from epsbench.harness.records import Record
from epsbench.harness.report.leaderboard import Board, Row, effort, worst_case
from epsbench.harness.report.results import Cell, canonical, start_words, way
from epsbench.harness.report.table import score_entry
from epsbench.harness.report.units import enumerate_words, number, points
from epsbench.harness.statistics import mean_interval, paired_difference_interval

Bits = Mapping[Any, np.ndarray]
"""Verdicts (n,) by seed."""
Pair = tuple[Row, Row]

MOST_PAIRS = 2
FGSM_IN_THE_BATCH = {"steps": 1, "relative_step_size": 1.0, "random_start": False}
"""`pgd-batch` with these is FGSM images in the batch, as `fgsm-loss` with α = 1/2 has them in the loss."""


def contrast_words(board: Board) -> list[str]:
    """A sentence for each comparison that the board holds: noise against FGSM of the same size, what defenses do to
    clean accuracy, augmentation, other first weights, FGSM images in the loss or in the batch, and what patience costs
    and finds.

    A difference has its 95 % interval: over images, paired, for one seed, and Student's t over several.
    """
    return [
        *_noise_and_fgsm(board),
        *_defenses(board),
        *_choices(board, "augmentation", lambda row: row.augmentation),
        *_choices(board, "start", lambda row: f"starting from weights of {start_words(row.records[0].cell)}"),
        *_loss_and_batch(board),
        *_patience(board),
    ]


def difference(before: Bits, after: Bits) -> str | None:
    """``"-1.2 points [-1.5, -0.9]"``: how the share of right verdicts moved over the seeds both have; None where they
    have none of the same images."""
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


def _noise_and_fgsm(board: Board) -> Iterator[str]:
    """At which ε FGSM beats noise by most, for the first undefended model that met both."""
    for row in board.rows:
        both = [eps for eps, _ in board.eps if {"noise", "fgsm"} <= set(board.attacks[eps])]
        gaps = {eps: (_met(row, eps, "noise"), _met(row, eps, "fgsm")) for eps in both}
        gaps = {eps: pair for eps, pair in gaps.items() if all(pair)}
        if row.defense != "none" or not gaps:
            continue
        widest = max(gaps, key=lambda eps: _share(gaps[eps][0]) - _share(gaps[eps][1]))
        noise, fgsm = (score_entry(row.attacks[widest, name]).text for name in ("noise", "fgsm"))
        of_several = f", the widest gap of {len(gaps)} ε" if len(gaps) > 1 else ""
        yield (
            f"Noise of size ε = {dict(board.eps)[widest]} leaves {row.label} {noise}, FGSM of the same size {fgsm}: "
            f"{difference(*gaps[widest])}{of_several}."
        )
        return


def _defenses(board: Board) -> Iterator[str]:
    """What defenses cost of the clean accuracy of the model that has none."""
    for base, others in _families(board, "defense")[:MOST_PAIRS]:
        clean = _clean(base)
        told = [
            (_share(_clean(row)), row.defense, moved) for row in others if (moved := difference(clean, _clean(row)))
        ]
        if not told:
            continue
        ordered = sorted(told, reverse=True)
        ends = [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered
        spread = " to ".join(f"{moved} ({defense})" for _, defense, moved in ends)
        yield f"Defending moves the clean accuracy of {base.label}, {score_entry(base.clean).text}, by {spread}."


def _choices(board: Board, axis: str, name: Callable[[Row], str]) -> Iterator[str]:
    """What another value of an axis does to a model that has the axis's default."""
    pairs = [(base, other) for base, others in _families(board, axis) for other in others]
    for base, other in pairs[:MOST_PAIRS]:
        if moved := _moved(board, base, other):
            yield f"For {base.label}, {name(other)} moves {moved}."


def _loss_and_batch(board: Board) -> Iterator[str]:
    pairs: list[Pair] = []
    for rows in _alike(board, "defense"):
        losses = [row for row in rows if _holds(row, "fgsm-loss", {"alpha": 0.5})]
        batches = [row for row in rows if _holds(row, "pgd-batch", FGSM_IN_THE_BATCH)]
        pairs += [
            (loss, batch) for loss in losses for batch in batches if _defense(loss)["eps"] == _defense(batch)["eps"]
        ]
    for loss, batch in pairs[:MOST_PAIRS]:
        if moved := _moved(board, loss, batch):
            yield f"FGSM images of {loss.model} in the batch and not in the loss move {moved}."


def _patience(board: Board) -> Iterator[str]:
    """What the most patient attack takes and finds beside the least, where both take every step: with early stopping
    time says as much of the model as of the attack."""
    eps, spelled = board.ranked
    for row in board.rows[:MOST_PAIRS]:
        speeds: dict[tuple[int, str], list[float]] = defaultdict(list)
        for record in _at(row, eps):
            speed = record.cost.get("images_per_second")
            name = record.cell["attack"]["name"]
            if not record.cell.get("early_stop", True) and isinstance(speed, int | float) and speed > 0:
                speeds[effort(record.cell["attack"]), name].append(speed)
        taken = sorted(key for key in speeds if key[0])
        if len(taken) < 2:
            continue
        (few, least), (many, most) = taken[0], taken[-1]
        times = mean(speeds[few, least]) / mean(speeds[many, most])
        found = difference(_met(row, eps, least, few), _met(row, eps, most, many))
        yield (
            f"On {row.label}, {most} with {many} gradients an image takes {number(times)} × the time of {least} with "
            f"{few}, and moves the robust accuracy at ε = {spelled} by {found}."
        )


def _moved(board: Board, before: Row, after: Row) -> str:
    """What became of the clean accuracy, and of the worst case where both have one."""
    eps, spelled = board.ranked
    clean, worst = difference(_clean(before), _clean(after)), difference(_worst(before, eps), _worst(after, eps))
    told = [f"the clean accuracy by {clean}"] if clean else []
    return enumerate_words([*told, *([f"the worst case at ε = {spelled} by {worst}"] if worst else [])])


def _families(board: Board, axis: str) -> list[tuple[Row, list[Row]]]:
    """A row with an axis's default, and the rows that differ from it in this axis alone."""
    found = []
    for rows in _alike(board, axis):
        base = [row for row in rows if _is_default(row, axis)]
        others = [row for row in rows if not _is_default(row, axis)]
        found += [(row, others) for row in base if others]
    return found


def _alike(board: Board, axis: str) -> list[list[Row]]:
    """The rows of a board, those together that agree in all but one axis of their training."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in board.rows:
        rest = {key: value for key, value in way(row.records[0].cell).items() if key != axis}
        groups[canonical(rest)].append(row)
    return list(groups.values())


def _is_default(row: Row, axis: str) -> bool:
    value = row.records[0].cell.get(axis)
    return value is None or value == "none" or (isinstance(value, Mapping) and value.get("name") == "none")


def _defense(row: Row) -> Cell:
    held: Cell = row.records[0].cell["defense"]
    return held


def _holds(row: Row, name: str, parameters: Cell) -> bool:
    held = _defense(row)
    return held["name"] == name and "eps" in held and all(held.get(key) == value for key, value in parameters.items())


def _clean(row: Row) -> Bits:
    return {seed: _verdicts(held[0])[0] for seed, held in _measured(row).items()}


def _met(row: Row, eps: Fraction, name: str, steps: int | None = None) -> Bits:
    """Verdicts under the first attack of this name, and of so many steps over its restarts where they are given."""
    found: dict[Any, np.ndarray] = {}
    for record in _at(row, eps):
        attack = record.cell["attack"]
        if attack["name"] == name and steps in (None, effort(attack)):
            found.setdefault(record.cell["seed"], _verdicts(record)[1])
    return found


def _at(row: Row, eps: Fraction) -> list[Record]:
    return [record for held in _measured(row).values() for record in held if Fraction(record.cell["eps"]) == eps]


def _worst(row: Row, eps: Fraction) -> Bits:
    """The worst case by seed; empty where it is lacking or only a bound."""
    score = row.worst.get(eps)
    if score is None or score.value is None or score.note:
        return {}
    at = {seed: [r for r in held if Fraction(r.cell["eps"]) == eps] for seed, held in _measured(row).items()}
    return {seed: worst_case([_verdicts(record)[1] for record in held]) for seed, held in at.items() if held}


def _measured(row: Row) -> dict[Any, list[Record]]:
    """The records that hold verdicts, by seed."""
    found: dict[Any, list[Record]] = defaultdict(list)
    for record in row.records:
        if record.status == "ok" and record.verdicts is not None and record.verdicts.n:
            found[record.cell["seed"]].append(record)
    return found


def _verdicts(record: Record) -> tuple[np.ndarray, np.ndarray]:
    assert record.verdicts is not None  # `_measured` let no other through
    return record.verdicts.unpack()


def _share(bits: Bits) -> float:
    return mean(float(held.mean()) for held in bits.values())
