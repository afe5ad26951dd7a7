"""What attacks cost in time, gradients and memory: one line an attack and model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from statistics import mean, median

from epsbench.harness.records import Record
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.drawing.table import ASIDE, NEEDED, USUAL, Column, Entry, Table, fold
from epsbench.harness.report.results.cells import AttackKey, attack_key, distinct_texts, numbers
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.spent import spent
from epsbench.harness.report.results.units import (
    ABSENT,
    data_name,
    defense_name,
    duration,
    memory,
    norm_name,
    number,
    percent,
)
from epsbench.harness.report.robustness.leaderboard import Row, effort

TEXTS = ("precision", "form", "device")
FOLDED = frozenset({"data", "model", "defense", "peak memory", "batch", "compile", *TEXTS})
FLOOR = (
    "Of the floor: the shortest time in which this device computes as many gradients and verdicts, divided by the "
    f"time the attack took; {ABSENT} where the attack was too short to measure this."
)
STOPPING = (
    "An image that is fooled is not attacked further, so an attack on a weak model takes fewer gradients/image and "
    "less time."
)
NO_STOPPING = "No early stop: every image takes every step, fooled or not, so attacks are compared at equal work."
COMPILING = "Compile: the time of compilation, once a model; it is not part of the total."


def cost_table(results: Results) -> Table | None:
    """One line an attack and model, over the ε and seeds it ran at; None where no cost is recorded."""
    groups: dict[tuple[str, AttackKey], list[Record]] = defaultdict(list)
    for record in results.robustness:
        if record.status == "ok" and record.cost:
            groups[_place(record), attack_key(record.cell)].append(record)
    if not groups:
        return None
    ordered = sorted(groups.values(), key=_reading_order(results))
    fastest = _fastest(ordered)
    compiled = any(seconds > 0 for group in ordered for seconds in _costs(group, "compile_seconds"))
    titles = ("data", "model", "defense", "attack")
    floored = any(_costs(group, "floor_share") for group in ordered)
    measures = ["images/s", "gradients/image", "time per image", "total"]
    measures += [*(["of the floor"] if floored else []), "peak memory", "batch", *(["compile"] if compiled else [])]
    columns = (
        *(Column(title, label=title != "data", weight=NEEDED if title == "attack" else USUAL) for title in titles),
        *(Column(title, True, weight=ASIDE if title in FOLDED else USUAL) for title in measures),
        *(Column(title, weight=ASIDE) for title in TEXTS),
    )
    rows, starts, before = [], [], ""
    for index, group in enumerate(ordered):
        cell, names = group[0].cell, results.names
        if (now := canonical([cell["data"], cell["model"], cell["defense"]])) != before:
            starts.append(index)
            before = now
        rows.append(
            (
                Entry(data_name(cell["data"])),
                Entry(names.label("model", cell["model"])),
                Entry(defense_name(names.label("defense", cell["defense"]))),
                Entry(f"{names.attack(cell)} {norm_name(cell['norm'])}"),
                _spread(group, "images_per_second"),
                _spread(group, "gradients_per_image"),
                Entry(_compared(group, fastest)),
                Entry(duration(sum(map(spent, group)))),
                *([_spread(group, "floor_share", percent)] if floored else []),
                Entry(_largest(group, "peak_bytes", memory)),
                _spread(group, "batch_size"),
                *([Entry(_largest(group, "compile_seconds", duration))] if compiled else []),
                *(Entry(distinct_texts([record.cost for record in group], key)) for key in TEXTS),
            )
        )
    stops = {record.cell.get("early_stop", True) for group in ordered for record in group}
    caption = " ".join(
        [
            "Each line shows the median over its cells, and their range where they differ.",
            STOPPING if True in stops else NO_STOPPING,
            "Time per image is relative to the fastest gradient attack on the same model; total is the time of all "
            "cells of the line.",
            *([FLOOR] if floored else []),
            *([COMPILING] if compiled else []),
        ]
    )
    table = Table("What an attack costs", columns, tuple(rows), caption, starts=frozenset(starts))
    return fold(table, FOLDED)


def gradients(row: Row) -> dict[tuple[Fraction, AttackKey], float]:
    """Gradients for an image by ε and attack, averaged over seeds; failed cells are left out."""
    taken: dict[tuple[Fraction, AttackKey], list[float]] = defaultdict(list)
    for record in row.records:
        if record.status == "ok":
            place = Fraction(record.cell["eps"]), attack_key(record.cell)
            taken[place] += _costs([record], "gradients_per_image")
    return {place: mean(counts) for place, counts in taken.items() if counts}


def _reading_order(results: Results) -> Callable[[Sequence[Record]], tuple[int, float, str]]:
    """A sort key: models in the order of their first record, their attacks by effort."""
    seen: dict[str, int] = {}
    for record in results.robustness:
        seen.setdefault(_place(record), len(seen))

    def order(group: Sequence[Record]) -> tuple[int, float, str]:
        return seen[_place(group[0])], effort(group), results.names.attack(group[0].cell)

    return order


def _costs(group: Sequence[Record], key: str) -> list[float]:
    """The recorded costs, without shares of the floor above 1: old records have some, and no attack is that fast."""
    values = numbers([record.cost for record in group], key)
    return [value for value in values if value <= 1] if key == "floor_share" else values


def _speed(group: Sequence[Record]) -> float:
    return median(_costs(group, "images_per_second") or [0.0])


def _gradients(group: Sequence[Record]) -> bool:
    return any(_costs(group, "gradients_per_image"))


def _place(record: Record) -> str:
    cell = record.cell
    where = [cell[key] for key in ("data", "model", "defense", "norm")]
    return canonical([*where, record.cost.get("precision"), record.cost.get("device")])


def _fastest(groups: list[list[Record]]) -> Mapping[str, float]:
    """Images per second of the fastest gradient attack on every model."""
    speeds: dict[str, float] = {}
    for group in groups:
        if _gradients(group):
            speeds[_place(group[0])] = max(_speed(group), speeds.get(_place(group[0]), 0.0))
    return speeds


def _compared(group: Sequence[Record], fastest: Mapping[str, float]) -> str:
    speed, reference = _speed(group), fastest.get(_place(group[0]))
    return f"{reference / speed:.3g} ×" if speed and reference and _gradients(group) else ABSENT


def _spread(group: Sequence[Record], key: str, spell: Callable[[float], str] = number) -> Entry:
    values = _costs(group, key)
    if not values:
        return Entry(ABSENT, state="missing")
    low, middle, high = spell(min(values)), spell(median(values)), spell(max(values))
    return Entry(middle, f"({low.removesuffix(' %')}–{high})" if low != high else "")


def _largest(group: Sequence[Record], key: str, spell: Callable[[float], str]) -> str:
    largest = max(_costs(group, key), default=0.0)
    return spell(largest) if largest else ABSENT
