"""Images as PNG, several of them as one sheet, and the checked arrays of a picture file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.image import imsave

from epsbench.harness.errors import InputError
from epsbench.harness.records import Record, read_pictures


def png(image: np.ndarray) -> bytes:
    """An image (C, H, W) with values in [0, 1], one or three channels, as PNG."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image of shape {image.shape}, where (1, H, W) or (3, H, W) is expected")
    shown = np.clip(np.nan_to_num(image), 0, 1).transpose(1, 2, 0)
    shown = np.broadcast_to(shown, (*shown.shape[:2], 3))
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


def data_uri(image: bytes) -> str:
    """PNG or SVG bytes as a URI that needs no network."""
    kind = "image/png" if image.startswith(b"\x89PNG") else "image/svg+xml"
    return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"


@dataclass(frozen=True)
class Arrays:
    """The arrays of a picture file. Each is checked when it is read: a bad one is an `InputError` naming the file."""

    path: Path
    """The file."""
    arrays: dict[str, np.ndarray]
    """Its arrays by name, unchecked."""

    @classmethod
    def read(cls, folder: Path, record: Record) -> Arrays | None:
        """The arrays kept with a record in this results folder; None where there are none."""
        arrays = read_pictures(folder, record)
        return cls(folder / "pictures" / f"{record.id}.npz", arrays) if arrays else None

    def images(self, name: str) -> np.ndarray:
        """An array of images (N, C, H, W)."""
        return self._checked(name, 4)

    def rows(self, name: str) -> np.ndarray:
        """An array of rows of images (R, N, C, H, W)."""
        return self._checked(name, 5)

    def vector(self, name: str) -> np.ndarray:
        """An array of numbers (N,)."""
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
