"""How robust accuracy differs between curve "each" and the kinds of curve whose ε depend on each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from statistics import mean

from epsbench.harness.records import Record
from epsbench.harness.report.drawing.table import Column, Entry, Table
from epsbench.harness.report.results.cells import EACH, AttackKey, attack_key, numbers
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import ABSENT, norm_name, number
from epsbench.harness.report.robustness.leaderboard import Board

Curve = dict[tuple[int, Fraction], Record]
"""The cells of one curve, by seed and ε."""

CAPTION = (
    "Robust accuracy minus that of the same attack with curve each, where every ε is attacked separately, in "
    "percentage points; means over seeds. Gradients/image is the sum over these ε. A nested curve can only be lower, "
    "because an image fooled at a smaller ε stays fooled. A bisected curve can also be higher: it tries a large ε "
    "first, and an attack can fail there and succeed at a smaller ε."
)


def movement_tables(boards: list[Board], results: Results) -> list[Table]:
    """One table for every board with cells that were measured with curve "each" and with another."""
    return [table for board in boards if (table := _table(board, results)) is not None]


def _table(board: Board, results: Results) -> Table | None:
    rows: list[tuple[Entry, ...]] = []
    starts: list[int] = []
    for row in board.rows:
        starts.append(len(rows))
        for label, pairs in _pairs(row.records, results):
            rows.append((Entry(row.label), Entry(label), *_differences(board, pairs), _gradients(pairs)))
    if not rows:
        return None
    columns = (
        Column("model", label=True),
        Column("attack", label=True),
        *(Column(f"ε {spelled}", True) for _, spelled in board.eps),
        Column("gradients/image", True),
    )
    title = f"Effect of the kind of ε curve on {board.data}, {norm_name(board.norm)}"
    return Table(title, columns, tuple(rows), CAPTION, starts=frozenset(starts))


def _pairs(records: tuple[Record, ...], results: Results) -> Iterator[tuple[str, dict[Fraction, list[Pair]]]]:
    """Each attack with dependent ε by its label, and by ε the pairs of its cells and those of curve "each"."""
    curves: dict[AttackKey, Curve] = defaultdict(dict)
    for record in records:
        if record.status == "ok" and "robust_accuracy" in record.metrics:
            curves[attack_key(record.cell)][record.cell["seed"], Fraction(record.cell["eps"])] = record
    labels = {attack: results.names.attack(next(iter(cells.values())).cell) for attack, cells in curves.items()}
    for attack in sorted(curves, key=labels.__getitem__):
        alone = curves.get(replace(attack, curve=EACH), {}) if attack.curve != EACH else {}
        by_eps: dict[Fraction, list[Pair]] = defaultdict(list)
        for (seed, eps), record in curves[attack].items():
            if (seed, eps) in alone and _same_weights(alone[seed, eps], record):
                by_eps[eps].append((alone[seed, eps], record))
        if by_eps:
            yield labels[attack], by_eps


Pair = tuple[Record, Record]
"""The same cell under curve "each", and under another kind of curve."""


def _same_weights(a: Record, b: Record) -> bool:
    return a.training.get("weights_sha256") == b.training.get("weights_sha256")


def _differences(board: Board, pairs: dict[Fraction, list[Pair]]) -> Iterator[Entry]:
    for eps, _ in board.eps:
        moved = [b.metrics["robust_accuracy"].value - a.metrics["robust_accuracy"].value for a, b in pairs.get(eps, [])]
        yield Entry(_points(100 * mean(moved))) if moved else Entry(ABSENT, state="missing")


def _points(difference: float) -> str:
    """To a hundredth, which shows one image of ten thousand."""
    return f"{difference:+.2f}" if abs(difference) >= 0.005 else "0"


def _gradients(pairs: dict[Fraction, list[Pair]]) -> Entry:
    """Gradients for an image over all ε, under curve "each" and under the other, and their ratio."""
    counts = [[(_taken(a), _taken(b)) for a, b in group] for group in pairs.values()]
    before = sum(mean(a for a, _ in group) for group in counts)
    after = sum(mean(b for _, b in group) for group in counts)
    return Entry(f"{number(before)} → {number(after)}", f"÷ {number(before / after)}" if after else "")


def _taken(record: Record) -> float:
    return next(iter(numbers([record.cost], "gradients_per_image")), 0.0)
