"""Adversarial images as a file for others, which says what they are. No torch.

Arrays ``images`` (n, C, H, W), ``labels`` and ``predictions`` (n,), and ``eps``; the names ``attack``, ``norm`` and
``model``; and ``cell``, JSON, with all of their parameters as in a record.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epsbench.harness.errors import InputError
from epsbench.harness.files import DAMAGED_ARCHIVE, keep_archive

if TYPE_CHECKING:
    from epsbench.harness.evaluation import Point

SAVED = {"labels": "labels", "predictions": "adversarial_class", "eps": "eps"}
"""The arrays of a file of saved images beside ``images``, each with what is kept of an image."""

NAMES = ("attack", "norm", "model")
"""What the file says of the cell in one word each."""


def files_of_images(path: Path, points: int) -> list[Path]:
    """The files that `save_images` writes for so many points.

    Raises `InputError` where one of them is there and holds something else: the test images, say, or weights.
    """
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix or '.npz'}") for number in range(points))
    files = [path] if points == 1 else list(numbered)
    for file in files:
        if file.is_dir():
            raise InputError(f"{file}: is a folder; name a file, such as {file / 'images.npz'}")
        if file.is_file() and not _has_saved_images(file):
            raise InputError(f"{file}: is there, and no file of adversarial images; save them under another name")
    return files


def _has_saved_images(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except DAMAGED_ARCHIVE:
        return False
    needed = {"images", *SAVED}  # earlier versions wrote nothing else
    return needed <= names <= needed | {*NAMES, "cell"}


def save_images(points: Sequence[Point], path: Path) -> list[Path]:
    """`Evaluation.save_images`; returns the files. Raises `InputError` where one cannot be written."""
    files = files_of_images(path, len(points))
    for point, file in zip(points, files, strict=True):
        others = {name: point.per_image[key] for name, key in SAVED.items()}
        keep_archive(file, {"images": point.per_image.chunked(), **others, **_cell_of(point)}, compressed=True)
    return files


def _cell_of(point: Point) -> dict[str, str]:
    """What says of the images how they were made."""
    cell = point.record.cell
    named = {name: str(cell[name]["name"] if isinstance(cell[name], dict) else cell[name]) for name in NAMES}
    return named | {"cell": json.dumps(cell, sort_keys=True)}
