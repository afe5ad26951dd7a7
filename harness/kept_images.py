"""What a results folder keeps of each image of a cell; the images themselves may stay in their file. No torch."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from epsbench.harness.errors import InputError
from epsbench.harness.files import DAMAGED_ARCHIVE, Chunked, read_array_header

CHUNK = 2**24  # bytes of images that are read at a time


class PerImage(Mapping[str, Any]):
    """Arrays by name, (n, …) each. ``images`` are read from their file whenever they are asked for, if they are large.

    The file is open as long as this object lives: it may be deleted meanwhile.
    """

    def __init__(self, arrays: Mapping[str, Any], stored: Stored | None = None) -> None:
        """``arrays`` are in memory; ``stored``: the images that are not."""
        self._arrays, self._stored = dict(arrays), stored

    @classmethod
    def read(cls, path: Path, most: int) -> PerImage:
        """What a file of kept images holds. Images that take more than ``most`` bytes stay there.

        Raises `InputError` where it is damaged.
        """
        try:
            # Opened here: NumPy leaves a damaged file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                names = [name for name in archive.files if name not in ("of", "images")]
                arrays = {name: archive[name] for name in names}
            stored = Stored(path)
            if stored.nbytes > most:
                return cls(arrays, stored)
            return cls({"images": stored.whole(), **arrays})
        except DAMAGED_ARCHIVE as error:
            raise _unreadable(path, error) from error

    def __getitem__(self, name: str) -> Any:
        if name == "images" and self._stored is not None:
            return self._stored.whole()
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        yield from () if self._stored is None else ("images",)
        yield from self._arrays

    def __len__(self) -> int:
        return len(self._arrays) + (self._stored is not None)

    def small(self) -> dict[str, Any]:
        """All arrays but the images."""
        return {name: array for name, array in self._arrays.items() if name != "images"}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the images, (n, C, H, W)."""
        return self._stored.shape if self._stored is not None else tuple(self._arrays["images"].shape)

    def parts(self) -> Iterator[np.ndarray]:
        """The images, some megabytes at a time."""
        if self._stored is not None:
            yield from self._stored.chunks()
        else:
            yield self._arrays["images"]

    def chunked(self) -> Chunked:
        """The images as they are written to another archive."""
        return Chunked(self.shape, np.float32, self.parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return PerImage, ({name: self[name] for name in self},)  # the file may not be there when it is loaded


class Stored:
    """The array ``images`` of an uncompressed ``.npz`` archive, which stays open."""

    def __init__(self, path: Path) -> None:
        """Raises what `zipfile` and NumPy raise for a damaged file."""
        self._path, self._archive = path, zipfile.ZipFile(path)
        with self._opened() as member:
            self.shape, self._fortran, self.dtype = read_array_header(member)

    @property
    def nbytes(self) -> int:
        """What all of them take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def whole(self) -> np.ndarray:
        """All images (n, C, H, W). Raises `InputError` where they cannot be read any more."""
        images = np.empty(self.shape, dtype=self.dtype)
        at = 0
        for part in self.chunks():
            images[at : at + len(part)] = part
            at += len(part)
        return images

    def chunks(self) -> Iterator[np.ndarray]:
        """The images, some megabytes at a time. Raises `InputError` as `whole`."""
        one = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        step = max(1, CHUNK // one)
        try:
            with self._opened() as member:
                read_array_header(member)
                for start in range(0, self.shape[0], step):
                    count = min(step, self.shape[0] - start)
                    content = member.read(count * one)
                    yield np.frombuffer(content, dtype=self.dtype).reshape(count, *self.shape[1:])
        except DAMAGED_ARCHIVE as error:
            raise _unreadable(self._path, error) from error

    def _opened(self) -> IO[bytes]:
        return self._archive.open("images.npy")

    def __del__(self) -> None:
        archive = self.__dict__.get("_archive")
        if archive is not None:
            archive.close()


def _unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path}: the images of this evaluation cannot be read ({error}); run it again")
