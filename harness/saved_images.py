"""Adversarial images as a file for others: ``images``, ``labels``, ``predictions`` and ``eps``. No torch."""

from __future__ import annotations

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
            return set(archive.namelist()) == {f"{name}.npy" for name in ("images", *SAVED)}
    except DAMAGED_ARCHIVE:
        return False


def save_images(points: Sequence[Point], path: Path) -> list[Path]:
    """`Evaluation.save_images`; returns the files. Raises `InputError` where one cannot be written."""
    files = files_of_images(path, len(points))
    for point, file in zip(points, files, strict=True):
        others = {name: point.per_image[key] for name, key in SAVED.items()}
        keep_archive(file, {"images": point.per_image.chunked(), **others}, compressed=True)
    return files
