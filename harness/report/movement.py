"""How much a number moves when the points of a curve over ε are taken to depend on each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from statistics import mean

from epsbench.harness.records import Record
from epsbench.harness.report.leaderboard import Board
from epsbench.harness.report.results import Results, canonical
from epsbench.harness.report.table import Column, Entry, Table
from epsbench.harness.report.units import ABSENT, norm_name, number

Curve = dict[tuple[int, Fraction], Record]
"""The cells of one curve, by seed and ε."""

CAPTION = (
    "Robust accuracy less that of the same attack with every ε on its own (each), in percentage points; means over "
    "seeds. Gradients/image is the sum over these ε. A nested curve can only be lower, for it keeps what a smaller ε "
    "found; a bisected one can also be higher, where an attack of finite strength fools at a small ε and not at the "
    "larger one that was tried first."
)


def movement_tables(boards: list[Board], results: Results) -> list[Table]:
    """For every board with cells that were measured under `each` and under another curve, what that changed."""
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
    title = f"How much the numbers move on {board.data}, {norm_name(board.norm)}"
    return Table(title, columns, tuple(rows), CAPTION, starts=frozenset(starts))


def _pairs(records: tuple[Record, ...], results: Results) -> Iterator[tuple[str, dict[Fraction, list[Pair]]]]:
    """Each attack with dependent ε, by its label, and by ε its cells beside those that stand on their own."""
    kinds: dict[str, dict[str, Curve]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        cell = record.cell
        if record.status == "ok" and "robust_accuracy" in record.metrics:
            attack = canonical([cell["attack"], cell.get("early_stop", True)])
            label = "" if cell.get("curve", "each") == "each" else results.names.attack(cell)
            kinds[attack][label][cell["seed"], Fraction(cell["eps"])] = record
    for curves in kinds.values():
        alone = curves.pop("", {})
        for label, curve in sorted(curves.items()):
            by_eps: dict[Fraction, list[Pair]] = defaultdict(list)
            for (seed, eps), record in curve.items():
                if (seed, eps) in alone and _same_weights(alone[seed, eps], record):
                    by_eps[eps].append((alone[seed, eps], record))
            if by_eps:
                yield label, by_eps


Pair = tuple[Record, Record]
"""The same cell with its ε on its own, and on a curve."""


def _same_weights(a: Record, b: Record) -> bool:
    return a.training.get("weights_sha256") == b.training.get("weights_sha256")


def _differences(board: Board, pairs: dict[Fraction, list[Pair]]) -> Iterator[Entry]:
    for eps, _ in board.eps:
        moved = [b.metrics["robust_accuracy"].value - a.metrics["robust_accuracy"].value for a, b in pairs.get(eps, [])]
        yield Entry(_points(100 * mean(moved))) if moved else Entry(ABSENT, state="missing")


def _points(difference: float) -> str:
    """To a hundredth: one image of ten thousand shows."""
    return f"{difference:+.2f}" if abs(difference) >= 0.005 else "0"


def _gradients(pairs: dict[Fraction, list[Pair]]) -> Entry:
    """Gradients for an image over the whole curve, from each to the curve, and their ratio."""
    held = [[(_taken(a), _taken(b)) for a, b in group] for group in pairs.values()]
    before = sum(mean(a for a, _ in group) for group in held)
    after = sum(mean(b for _, b in group) for group in held)
    return Entry(f"{number(before)} → {number(after)}", f"÷ {number(before / after)}" if after else "")


def _taken(record: Record) -> float:
    value = record.cost.get("gradients_per_image")
    return float(value) if isinstance(value, int | float) else 0.0
