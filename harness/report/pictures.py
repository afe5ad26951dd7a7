"""Images of a report as PNG: adversarial examples, and what all pictures are made with."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from matplotlib.image import imsave

from epsbench.harness.errors import InputError
from epsbench.harness.records import Record, read_pictures
from epsbench.harness.report.leaderboard import Board, Row
from epsbench.harness.report.results import Results

SHOWN = 6
MAGNIFICATIONS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Example:
    """One attacked image: PNGs of the original, the adversarial image and the magnified difference."""

    original: bytes
    adversarial: bytes
    difference: bytes
    label: int
    predicted: int
    fooled: bool


@dataclass(frozen=True)
class Gallery:
    """The pictures kept of one robustness cell. ``magnification`` is that of the difference, around mid-grey."""

    row: Row
    attack: str
    eps: str
    magnification: int
    examples: tuple[Example, ...]


def png(image: np.ndarray, pixels: int = 1) -> bytes:
    """An image (C, H, W) with values in [0, 1], one or three channels, as PNG; each pixel ``pixels`` wide."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image of shape {image.shape}, where (1, H, W) or (3, H, W) is expected")
    shown = np.clip(np.nan_to_num(image), 0, 1).transpose(1, 2, 0)
    shown = np.broadcast_to(shown, (*shown.shape[:2], 3)).repeat(pixels, axis=0).repeat(pixels, axis=1)
    buffer = io.BytesIO()
    imsave(buffer, np.round(255 * shown).astype(np.uint8), format="png")
    return buffer.getvalue()


def grid(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images (N, C, H, W) as one (C, rows·(H+gap)−gap, columns·(W+gap)−gap), row by row, on mid-grey."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    sheet = np.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 0.5, dtype=np.float32)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def magnification(difference: np.ndarray) -> int:
    """The largest round factor that keeps the difference, drawn around mid-grey, inside [0, 1]."""
    largest = float(np.abs(difference).max(initial=0.0))
    fitting = [factor for factor in MAGNIFICATIONS if factor * largest <= 0.5 + 1e-6]
    return fitting[-1] if fitting and largest > 0 else 1


def galleries(board: Board, results: Results) -> Iterator[Gallery]:
    """For every row of a board, the strongest attack with pictures at the largest ε that has any."""
    for row in board.rows:
        if (record := _most_telling(row)) is None:
            continue
        folder = results.home(record)
        arrays = read_pictures(folder, record)
        if not arrays:
            continue
        eps = Fraction(record.cell["eps"])
        attack = results.names.attack(record.cell)
        held = Arrays(folder / "pictures" / f"{record.id}.npz", arrays)
        original, adversarial = held.images("original"), held.images("adversarial")
        labels, predicted, fooled = (held.vector(name) for name in ("labels", "predicted", "fooled"))
        difference = adversarial - original
        factor = magnification(difference[:SHOWN])
        order = np.argsort(~fooled.astype(bool), kind="stable")[:SHOWN]  # fooled ones first
        examples = tuple(
            Example(
                png(original[i]),
                png(adversarial[i]),
                png(0.5 + factor * difference[i]),
                int(labels[i]),
                int(predicted[i]),
                bool(fooled[i]),
            )
            for i in order
        )
        yield Gallery(row, attack, dict(board.eps)[eps], factor, examples)


def _most_telling(row: Row) -> Record | None:
    kept = [record for record in row.records if record.status == "ok" and record.pictures]
    return max(
        kept,
        key=lambda record: (Fraction(record.cell["eps"]), -record.metrics["robust_accuracy"].value),
        default=None,
    )


@dataclass(frozen=True)
class Arrays:
    """Arrays of a picture file, with their shapes checked: a bad one is an `InputError` that names the file."""

    path: Path
    arrays: dict[str, np.ndarray]

    def images(self, name: str) -> np.ndarray:
        return self._checked(name, 4)

    def rows(self, name: str) -> np.ndarray:
        return self._checked(name, 5)

    def vector(self, name: str) -> np.ndarray:
        return self._checked(name, 1)

    def _checked(self, name: str, dimensions: int) -> np.ndarray:
        array = self.arrays.get(name)
        remedy = "delete it and its record, then run again"
        if array is None:
            raise InputError(f"{self.path}: lacks the array {name!r}; {remedy}")
        bad = array.ndim != dimensions or not array.size or array.dtype.kind not in "biuf"
        if bad or (dimensions > 1 and array.shape[-3] not in (1, 3)):
            raise InputError(f"{self.path}: {name}: unexpected shape {array.shape} or type {array.dtype}; {remedy}")
        return array
