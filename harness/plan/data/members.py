"""The arrays of NumPy files, read whole or in chunks."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epsbench.harness.errors import InputError
from epsbench.harness.files import DAMAGED_ARCHIVE, read_array_header
from epsbench.harness.plan.data.pixels import CHUNK, chunks
from epsbench.models.file_kinds import FileKind, kind_of


@dataclass(frozen=True)
class Member:
    """An array of a ``.npz`` file, or the one of a ``.npy`` file, that is not read yet."""

    path: Path
    """The file."""
    name: str
    """The array's name; empty in a ``.npy`` file."""
    shape: tuple[int, ...]
    """(N, …)."""
    dtype: np.dtype
    """As it is stored."""
    fortran: bool
    """Whether it is stored with the first axis last."""

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def require_plain(self) -> None:
        """Raises `InputError` where the array holds pickled objects."""
        if self.dtype.hasobject:
            raise damaged(self.path, ValueError("allow_pickle"))

    def read(self) -> np.ndarray:
        """The whole array. Raises `InputError` where the file is damaged, or the array holds pickled objects."""
        try:
            with ExitStack() as ends:
                return np.lib.format.read_array(self._opened(ends), allow_pickle=False)
        except DAMAGED_ARCHIVE as error:
            raise damaged(self.path, error) from error

    def chunks(self) -> Iterator[np.ndarray]:
        """The whole array, some megabytes at a time. Raises `InputError` as `read`."""
        if self.fortran or not self.shape or self.dtype.hasobject:
            yield from chunks(self.read())
            return
        size = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        step = max(1, CHUNK // size)
        with ExitStack() as ends:
            try:
                file = self._opened(ends)
                read_array_header(file)
                for start in range(0, len(self), step):
                    count = min(step, len(self) - start)
                    content = _exactly(file, count * size)
                    yield np.frombuffer(content, dtype=self.dtype).reshape(count, *self.shape[1:])
            except DAMAGED_ARCHIVE as error:
                raise damaged(self.path, error) from error

    def _opened(self, ends: ExitStack) -> Any:
        if not self.name:
            return ends.enter_context(self.path.open("rb"))
        return ends.enter_context(ends.enter_context(zipfile.ZipFile(self.path)).open(f"{self.name}.npy"))


def members_of(path: Path) -> Mapping[str, Member]:
    """The arrays of a NumPy file by name; that of a ``.npy`` file has an empty name.

    Raises `InputError` where the file is not there, or is damaged.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                shape, fortran, dtype = read_array_header(file)
                return {"": Member(path, "", shape, dtype, fortran)}
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            for each in archive.namelist():
                if each.endswith(".npy"):
                    name = each.removesuffix(".npy")
                    with archive.open(each) as stream:
                        shape, fortran, dtype = read_array_header(stream)
                    arrays[name] = Member(path, name, shape, dtype, fortran)
            if not arrays and archive.namelist():
                raise ValueError("it holds no array")
        return arrays
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the path") from error
    except DAMAGED_ARCHIVE as error:
        raise damaged(path, error) from error


_REMEDIES = {
    "empty": "copy or download it again",
    "cut": "copy or download it again",
    "lfs": "fetch it with `git lfs pull`",
    "html": "download the file itself",
    "packed": "unpack it, and give the file inside",
    "zip": "unpack it: a folder of images is data, too",
    "folder": "leave the ending .npz out of the name of a folder of images",
}


def damaged(path: Path, error: BaseException) -> InputError:
    """The error of a NumPy file that cannot be read."""
    if isinstance(error, ValueError) and "allow_pickle" in str(error):
        return InputError(
            f"{path}: holds pickled objects, which could run code when they are loaded; save plain arrays: "
            "numpy.savez(path, images=images, labels=labels)"
        )
    try:
        kind = kind_of(path)
    except OSError:
        kind = FileKind("")
    if kind.text and kind.code not in ("npz", "npy"):
        remedy = _REMEDIES.get(kind.code, "save the images and labels with numpy.savez(path, images=…, labels=…)")
        return InputError(f"{path}: is no NumPy file, it is {kind.text}; {remedy}")
    return InputError(f"{path}: is no NumPy file, or damaged ({error}); save it with numpy.savez")


def _exactly(file: Any, size: int) -> bytes:
    """So many bytes of a stream. Raises `EOFError` where it ends before."""
    content = bytearray()
    while len(content) < size:
        part = file.read(size - len(content))
        if not part:
            raise EOFError("an array ends early")
        content += part
    return bytes(content)
