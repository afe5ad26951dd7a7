"""Images that stay in a file and are read by position, so that memory stays flat in their number.

The file is a memory map on the disk: the pixels of all images, one after the other. It is read with ``pread`` and not
mapped, because pages of a mapping count as memory of the process, and a long run would hold all of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from epsbench.harness.files import read_array_header

CHUNK = 2**22
"""Bytes of pixels that one look at a whole data set keeps in memory at a time."""


class PixelFile:
    """Images (N, C, H, W) in a ``.npy`` file. Indexing reads them; `take` only chooses.

    The file is open as long as there is a choice of its images: it may be renamed or deleted meanwhile.
    """

    ndim = 4

    def __init__(self, path: Path) -> None:
        """Raises `OSError` or `ValueError` for a file that is no such array, or is shorter than it claims."""
        self._file = _OpenFile(path)
        with path.open("rb") as file:
            shape, fortran, dtype = read_array_header(file)
            offset = file.tell()
        if fortran or len(shape) != self.ndim or dtype.hasobject:
            raise ValueError(f"{path}: is no array of images")
        self.dtype, self._image, self._offset = dtype, shape[1:], offset
        self._size = math.prod(self._image) * dtype.itemsize
        if path.stat().st_size != offset + shape[0] * self._size:
            raise ValueError(f"{path}: is shorter or longer than its images")
        self._rows = np.arange(shape[0])

    @property
    def path(self) -> Path:
        """Where the file was when it was opened."""
        return self._file.path

    @property
    def rows(self) -> np.ndarray:
        """The positions in the file (N,) of these images."""
        return self._rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self), *self._image)

    @property
    def nbytes(self) -> int:
        """What all of them would take in memory."""
        return len(self) * self._size

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, index: np.ndarray | slice) -> PixelFile:
        """The images at these positions, in this order; nothing is read."""
        chosen = object.__new__(PixelFile)
        chosen.__dict__ = self.__dict__ | {"_rows": self._rows[index]}
        return chosen

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """The images at these positions. Raises `OSError` where the file cannot be read any more."""
        rows = self._rows[index]
        images = np.empty((len(rows), *self._image), dtype=self.dtype)
        if not images.size:
            return images
        into, done = images.reshape(-1).view(np.uint8).data, 0
        for first, count in _runs(rows):
            size = count * self._size
            self._file.read(self._offset + first * self._size, into[done : done + size])
            done += size
        return images

    def expect(self, index: np.ndarray | slice) -> None:
        """Let the system fetch these images while this process computes: they are read next."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            for first, count in _runs(self._rows[index]):
                at = self._offset + first * self._size
                os.posix_fadvise(self._file.number, at, count * self._size, os.POSIX_FADV_WILLNEED)


class _OpenFile:
    """An open file, shared by all choices of its images."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = os.open(path, os.O_RDONLY)

    def read(self, at: int, into: memoryview) -> None:
        """Fill ``into`` with the bytes from ``at`` on."""
        done = 0
        while done < len(into):
            got = os.preadv(self.number, [into[done:]], at + done)
            if not got:
                raise OSError(f"{self.path}: ends at byte {at + done}, before its last image")
            done += got

    def __del__(self) -> None:
        if (number := self.__dict__.pop("number", None)) is not None:
            os.close(number)

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return _opened_again, (self.path,)


MOVED: dict[Path, Path] = {}
"""Files of another machine, by their path there: where this process has a copy."""


def _opened_again(path: Path) -> _OpenFile:
    return _OpenFile(MOVED.get(path, path))


Images = np.ndarray | PixelFile
"""Images (N, C, H, W) in memory or in a file."""


def taken(images: Images, index: np.ndarray | slice) -> Images:
    """The images at these positions, in this order; those in a file stay there."""
    return images.take(index) if isinstance(images, PixelFile) else images[index]


def chunks(array: Images) -> Iterator[np.ndarray]:
    """The whole array (N, …), some megabytes at a time."""
    size = math.prod(array.shape[1:]) * array.dtype.itemsize
    step = max(1, CHUNK // max(1, size))
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows of the file as runs of neighbours: the first and how many."""
    if not len(rows):
        return
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    for start, end in pairwise(edges):
        yield int(rows[start]), end - start
