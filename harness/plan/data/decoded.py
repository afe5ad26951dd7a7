"""Decoded images: in memory where a data set fits the budget, else once in files of the cache.

While a data set is decoded, its files are in a work folder that belongs to this process. Once its content is known the
folder gets the name of the content, in one step: a killed run leaves no half a data set, and of two runs that decode
the same data one comes first and the other takes what is there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from epsbench.harness.errors import InputError
from epsbench.harness.files import cache_folder, write_array_header
from epsbench.harness.plan.data.budget import VARIABLE, budget
from epsbench.harness.plan.data.checks import all_black, checked_chunk
from epsbench.harness.plan.data.pixels import Images, PixelFile

_WORK = ".work-"


class Decoder:
    """Takes the images of one data set, split by split: all into memory, or all into files."""

    def __init__(self, where: str, size: int) -> None:
        """``size``: the bytes that the images of all splits take. More than the `budget` goes into files."""
        self._where = where
        self.work = WorkFolder(where) if size > budget() else None

    def collect(self, name: str, parts: Iterable[np.ndarray], total: int, where: str, layout: str = "auto") -> Images:
        """``total`` images that come as arrays (k, …) of one type, checked as `checked_images` checks them together.

        ``name`` is the file's, in a folder of its own. Raises `InputError` for what are no images, and where there is
        no room for the file.
        """
        whole: np.ndarray | None = None
        file: IO[bytes] | None = None
        done, dark = 0, True
        try:
            for part in parts:
                images = checked_chunk(part, where, layout, done)
                dark = dark and images.dtype == np.uint8 and int(images.max(initial=0)) <= 1
                shape = (total, *images.shape[1:])
                if self.work is None:
                    whole = np.empty(shape, dtype=images.dtype) if whole is None else whole
                    whole[done : done + len(images)] = images
                else:
                    file = file or self.work.begin(name, shape, images.dtype)
                    self.work.append(file, images)
                done += len(images)
            if not done:
                raise InputError(f"{where}: holds no image")
            if dark:
                raise all_black(where)
        except BaseException:
            if self.work is not None:  # at once: what is known of the error refers to the folder for a while
                self.work.drop()
            raise
        finally:
            if file is not None:
                file.close()
        return whole if self.work is None and whole is not None else self._reopened(name)

    def grow(self, name: str, parts: Iterable[np.ndarray], where: str, layout: str = "auto") -> Images:
        """As `collect`, for a number of images that is not known: into a file as soon as they exceed the `budget`."""
        known: list[np.ndarray] = []
        file: IO[bytes] | None = None
        done, taken, dark, most = 0, 0, True, budget()
        try:
            for part in parts:
                images = checked_chunk(part, where, layout, done)
                first = known[0] if known else images
                if images.shape[1:] != first.shape[1:] or images.dtype != first.dtype:
                    raise InputError(f"{where}: images from number {done} on are {_kind(images)}, and the first ones "
                                     f"{_kind(first)}; give all the same size and type")  # fmt: skip
                dark = dark and images.dtype == np.uint8 and int(images.max(initial=0)) <= 1
                done, taken = done + len(images), taken + images.nbytes
                if taken <= most:
                    known.append(images)
                    continue
                self.work = self.work or WorkFolder(self._where)
                if file is None:
                    file = self.work.begin(name, (done, *images.shape[1:]), images.dtype)
                    for each in known:
                        self.work.append(file, each)
                    known = [images[:1].copy()]
                self.work.append(file, images)
            if not done:
                raise InputError(f"{where}: holds no image")
            if dark:
                raise all_black(where)
            if file is None or self.work is None:
                return np.concatenate(known)
            self.work.finish(file, (done, *known[0].shape[1:]), known[0].dtype)
        except BaseException:
            if self.work is not None:
                self.work.drop()
            raise
        finally:
            if file is not None:
                file.close()
        return self._reopened(name)

    def _reopened(self, name: str) -> PixelFile:
        assert self.work is not None
        return PixelFile(self.work.path / f"{name}.npy")


class WorkFolder:
    """A folder of files that are written now. It is deleted when nobody refers to it any more, unless it is kept."""

    def __init__(self, where: str) -> None:
        """``where`` names the data in messages. Raises `InputError` where no folder can be made."""
        self._where, self._place = where, decoded_folder()
        try:
            with _alone(self._place):
                _sweep(self._place)
                self.path = Path(tempfile.mkdtemp(prefix=_WORK, dir=self._place))
                lock = (self.path / "lock").open("w")
                fcntl.flock(lock, fcntl.LOCK_EX)  # as long as this process lives, nobody sweeps the folder away
        except OSError as error:
            raise self._no_room(error) from error
        self._end = weakref.finalize(self, _remove, self.path, lock)

    def begin(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> IO[bytes]:
        """A new ``.npy`` file, open after its header; the pixels of the images are to be written behind it."""
        with self.writing():
            file = (self.path / f"{name}.npy").open("wb", buffering=0)
            write_array_header(file, shape, dtype)
        return file

    def finish(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Write the header again, for another number of images than at first: it has room for that."""
        with self.writing():
            file.seek(0)
            write_array_header(file, shape, dtype)

    def append(self, file: IO[bytes], images: np.ndarray) -> None:
        """Write images (k, …) to a file that `begin` made."""
        self.append_bytes(file, np.ascontiguousarray(images).reshape(-1).view(np.uint8).data)

    def append_bytes(self, file: IO[bytes], content: bytes | memoryview) -> None:
        """Write bytes to a file of this folder."""
        view, done = memoryview(content), 0
        with self.writing():
            while done < len(view):
                done += file.write(view[done:])

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, errors of the disk become one message."""
        try:
            yield
        except OSError as error:
            raise self._no_room(error) from error

    def drop(self) -> None:
        """Delete the folder. Files of it that are open can be read on."""
        self._end()

    def keep(self, name: str) -> Path:
        """Give the folder its final name, unless another process did so before; returns the path that has it."""
        final = self._place / name
        for path in self.path.glob("*.np[yz]"):
            _flush(path)
        with suppress(OSError):  # it is there: an equal one is complete
            self.path.rename(final)
            _flush(self._place)
        self.drop()
        return final

    def _no_room(self, error: OSError) -> InputError:
        return InputError(
            f"{self._where}: its images need more than the memory for data, and cannot be decoded into {self._place} "
            f"({error.strerror or error}); make room, name another folder with EPSBENCH_CACHE, or allow more memory "
            f"with --data-memory or {VARIABLE}"
        )


def _kind(images: np.ndarray) -> str:
    return f"{' × '.join(map(str, images.shape[1:]))} of {images.dtype}"


def decoded_folder() -> Path:
    """Where decoded data sets are: a folder of the cache; where that cannot be written, of the temporary files."""
    folder = cache_folder("decoded")
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"epsbench-decoded-{os.getuid()}"
        with suppress(OSError):  # the first file that is written says what is wrong
            folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def forget(content: str) -> None:
    """Delete the decoded files of a content that nobody names any more. Who reads them now keeps them open."""
    if content:
        shutil.rmtree(decoded_folder() / content, ignore_errors=True)


def _remove(folder: Path, lock: IO[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        lock.close()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside, no other process makes or sweeps work folders there."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(folder: Path) -> None:
    """Delete the work folders of processes that were killed."""
    for work in folder.glob(f"{_WORK}*"):
        with suppress(OSError), (work / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work, ignore_errors=True)


def _flush(path: Path) -> None:
    with suppress(OSError):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
