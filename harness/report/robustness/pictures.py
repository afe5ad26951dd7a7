"""Pictures of adversarial images: the original, the adversarial image, and their difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from epsbench.harness.records import Record
from epsbench.harness.report.drawing.images import Arrays, png
from epsbench.harness.report.results.class_names import class_name, class_names
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.robustness.leaderboard import Board, Row

SHOWN = 6
MAGNIFICATIONS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Example:
    """One attacked image."""

    original: bytes
    """The clean image as PNG."""
    adversarial: bytes
    """The adversarial image as PNG."""
    difference: bytes
    """Adversarial minus clean, magnified around mid-grey, as PNG."""
    label: str
    """The true class: its name, where that is known, else its number."""
    predicted: str
    """The class that the model sees in the adversarial image, likewise."""
    fooled: bool
    """Whether the attack succeeded."""


@dataclass(frozen=True)
class Gallery:
    """The pictures kept of one cell."""

    row: Row
    """The model, as a row of its leaderboard."""
    attack: str
    """The label of the attack."""
    eps: str
    """ε as the suite spells it."""
    magnification: int
    """The factor by which the differences are magnified."""
    examples: tuple[Example, ...]
    """The images, fooled ones first."""


def magnification(difference: np.ndarray) -> int:
    """The largest factor of `MAGNIFICATIONS` that keeps the difference, drawn around mid-grey, inside [0, 1]."""
    largest = float(np.abs(difference).max(initial=0.0))
    fitting = [factor for factor in MAGNIFICATIONS if factor * largest <= 0.5 + 1e-6]
    return fitting[-1] if fitting and largest > 0 else 1


def galleries(board: Board, results: Results) -> Iterator[Gallery]:
    """For every row of a board, the strongest attack at the largest ε that has pictures."""
    for row in board.rows:
        record = _strongest(row)
        arrays = None if record is None else Arrays.read(results.home(record), record)
        if record is None or arrays is None:
            continue
        eps = Fraction(record.cell["eps"])
        attack = results.names.attack(record.cell)
        original, adversarial = arrays.images("original"), arrays.images("adversarial")
        labels, predicted, fooled = (arrays.vector(name) for name in ("labels", "predicted", "fooled"))
        names = class_names(record)
        difference = adversarial - original
        factor = magnification(difference[:SHOWN])
        order = np.argsort(~fooled.astype(bool), kind="stable")[:SHOWN]  # fooled ones first
        examples = tuple(
            Example(
                png(original[i]),
                png(adversarial[i]),
                png(0.5 + factor * difference[i]),
                class_name(names, int(labels[i])),
                class_name(names, int(predicted[i])),
                bool(fooled[i]),
            )
            for i in order
        )
        yield Gallery(row, attack, dict(board.eps)[eps], factor, examples)


def _strongest(row: Row) -> Record | None:
    kept = [record for record in row.records if record.status == "ok" and record.pictures]
    return max(
        kept,
        key=lambda record: (Fraction(record.cell["eps"]), -record.metrics["robust_accuracy"].value),
        default=None,
    )
