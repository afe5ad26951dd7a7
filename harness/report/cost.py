"""What attacks cost, and what they find for it: one line an attack and model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from statistics import mean, median

from epsbench.harness.records import Record
from epsbench.harness.report.leaderboard import Row, effort
from epsbench.harness.report.results import Results, attack_key, canonical
from epsbench.harness.report.table import Column, Entry, Table, fold
from epsbench.harness.report.units import ABSENT, duration, memory, norm_name, number, percent, scalar

FOLDED = frozenset({"data", "model", "defense", "peak memory", "batch", "compile", "precision", "form", "device"})
FLOOR = (
    "Of the floor: the least time that so many bare gradients and verdicts take on this device, over the time they "
    f"took; {ABSENT} where the attack was too short to time it."
)
STOPPING = (
    "An image that is fooled early leaves early, so gradients/image counts what was computed, and a weak model is "
    "cheap to attack."
)
NO_STOPPING = "No early stop: fooled or not, every image takes every step, so attacks compare at equal work."
COMPILING = "Compile: seconds of compilation, once a model, not part of the total."


def cost_table(results: Results) -> Table | None:
    """What an attack costs: one line an attack and model, over the ε and seeds it ran at."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in results.robustness:
        if record.status == "ok" and record.cost:
            groups[_place(record) + attack_key(record.cell)].append(record)
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
        *(Column(title, label=title != "data") for title in titles),
        *(Column(title, True) for title in measures),
        Column("precision"),
        Column("form"),
        Column("device"),
    )
    rows, starts, before = [], [], ""
    for index, group in enumerate(ordered):
        cell, names = group[0].cell, results.names
        if (now := canonical([cell["data"], cell["model"], cell["defense"]])) != before:
            starts.append(index)
            before = now
        rows.append(
            (
                Entry(scalar(cell["data"])),
                Entry(names.label("model", cell["model"])),
                Entry(names.label("defense", cell["defense"])),
                Entry(f"{names.attack(cell)} {norm_name(cell['norm'])}"),
                _spread(group, "images_per_second"),
                _spread(group, "gradients_per_image"),
                Entry(_compared(group, fastest)),
                Entry(duration(sum(_costs(group, "seconds")))),
                *([_spread(group, "floor_share", percent)] if floored else []),
                Entry(_largest(group, "peak_bytes", memory)),
                _spread(group, "batch_size"),
                *([Entry(_largest(group, "compile_seconds", duration))] if compiled else []),
                Entry(_names(group, "precision")),
                Entry(_names(group, "form")),
                Entry(_names(group, "device")),
            )
        )
    stops = {record.cell.get("early_stop", True) for group in ordered for record in group}
    caption = " ".join(
        [
            "Median over the cells of a line, and the range where they differ.",
            STOPPING if True in stops else NO_STOPPING,
            "Time per image is relative to the fastest gradient attack on the same model; total is over all cells of "
            "the line.",
            *([FLOOR] if floored else []),
            *([COMPILING] if compiled else []),
        ]
    )
    table = Table("What an attack costs", columns, tuple(rows), caption, starts=frozenset(starts))
    return fold(table, FOLDED)


def gradients(row: Row, results: Results) -> dict[tuple[Fraction, str], float]:
    """The gradients that each attack of a row took for an image, by ε and attack, averaged over seeds; what failed
    is left out."""
    taken: dict[tuple[Fraction, str], list[float]] = defaultdict(list)
    for record in row.records:
        if record.status == "ok":
            place = Fraction(record.cell["eps"]), results.names.attack(record.cell)
            taken[place] += _costs([record], "gradients_per_image")
    return {place: mean(counts) for place, counts in taken.items() if counts}


def _reading_order(results: Results) -> Callable[[Sequence[Record]], tuple[int, int, str]]:
    """Models in the order of their first record, their attacks from the cheapest to the most patient."""
    seen: dict[str, int] = {}
    for record in results.robustness:
        seen.setdefault(_place(record), len(seen))

    def order(group: Sequence[Record]) -> tuple[int, int, str]:
        return seen[_place(group[0])], effort(group[0].cell["attack"]), results.names.attack(group[0].cell)

    return order


def _costs(group: Sequence[Record], key: str) -> list[float]:
    values = [record.cost.get(key) for record in group]
    return [float(value) for value in values if isinstance(value, int | float)]


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


def _names(group: Sequence[Record], key: str) -> str:
    """What the cells of a line have there: one text, or several."""
    return "; ".join(dict.fromkeys(scalar(record.cost.get(key, ABSENT)) for record in group))
