"""How files are written so that a killed process or a full disk loses nothing."""

from __future__ import annotations

import errno
import os
import platform
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from epsbench.harness.errors import InputError

if TYPE_CHECKING:
    import numpy as np

# What NumPy and zipfile raise on damaged archives. A damaged header may claim more data than fits in memory.
DAMAGED_ARCHIVE = (
    ValueError, OSError, EOFError, LookupError, AttributeError, TypeError, SyntaxError, OverflowError, MemoryError,
    RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


FileStamp = tuple[int, int, int, int]
"""Times of the last write and the last change, the size, and the number of a file. A replaced file has another one."""

JUST_WRITTEN_NS = 50_000_000
"""A file read so soon after it was written may change without another time stamp."""


def stamp_of(path: Path) -> FileStamp:
    """The stamp of a file or folder as it is now. Raises `OSError` where there is none."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@dataclass(frozen=True)
class Chunked:
    """An array that is not in memory at once."""

    shape: tuple[int, ...]
    """(N, …)."""

    dtype: Any
    """Of NumPy."""

    chunks: Callable[[], Iterator[Any]]
    """Gives arrays (k, …) of this type that make up the whole one, in their order."""


def write_archive(file: IO[bytes], arrays: Mapping[str, Any], compressed: bool) -> None:
    """Write arrays by name, some of them `Chunked`, as `numpy.savez` or `numpy.savez_compressed` writes them."""
    import numpy as np

    how = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", how, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if not isinstance(array, Chunked):
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
                    continue
                dtype = np.dtype(array.dtype)
                write_array_header(member, array.shape, dtype)
                for chunk in array.chunks():
                    member.write(np.ascontiguousarray(chunk, dtype=dtype).data)


def write_array_header(file: IO[bytes], shape: tuple[int, ...], dtype: Any) -> None:
    """Write what a ``.npy`` file begins with; the rows are to be written behind it, one after the other."""
    import numpy as np

    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def read_array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and type of the array that a ``.npy`` stream begins with."""
    import numpy as np

    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def keep_archive(path: Path, arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """`write_archive` into a file as `keep` writes it. Raises `InputError` when there is no room or no permission."""
    try:
        _write(path, lambda file: write_archive(file, arrays, compressed))
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_read(path: Path, error: OSError) -> InputError:
    """The error for a file that is there and cannot be read."""
    return InputError(f"{path}: cannot be read ({error.strerror or error}); check its permissions")


IN_USE: dict[Path, os.stat_result] = {}
"""The results folders that this process has locked (`epsbench.harness.run.machine.lock`), as they were then."""


def holder() -> str:
    """What the lock of a results folder says of this process."""
    return f"process {os.getpid()} on {platform.node()}"


def require_in_place(results: Path) -> None:
    """Raise `InputError` if this process has locked the folder and it is no longer there.

    What is written then would make another folder of the same name, which is in the way when the first is moved back.
    """
    if (before := IN_USE.get(results)) is None:
        return
    try:
        # Some file systems number a folder anew now and then; then its lock is still there.
        same = os.path.samestat(results.stat(), before) or (results / ".lock").read_text() == holder()
    except (OSError, ValueError):
        same = False
    if not same:
        raise InputError(
            f"{results}: was moved or deleted while this run was writing to it; finished cells are where it is now: "
            "move it back, or name its new place with --out (out= in Python), and the same call goes on from there"
        )


def require_around(path: Path) -> None:
    """`require_in_place` of the locked folders that this file is in."""
    for results in IN_USE:
        if path.is_relative_to(results):
            require_in_place(results)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it holds either its old content or all of the new, whenever the process is killed.

    Writes a temporary file, flushes it to the disk (fsync), renames it, and flushes the folder. Raises `InputError` in
    a results folder that was moved since this process locked it.
    """
    _write(path, lambda file: file.write(content))


def _write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    require_around(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def keep(path: Path, content: bytes) -> None:
    """`write_atomically` for files of a results folder. Raises `InputError` when there is no room or no permission."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise cannot_write(path, error) from error


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that every further file would meet as well: a run stops at them."""


OF_WEIGHTS = frozenset({".safetensors", ".checkpoint", ".lock"})
"""Endings of the files in a folder of weights."""


_REMEDIES = {
    errno.EFBIG: "raise the limit (`ulimit -f`)",
    errno.EACCES: "correct its owner or its permissions",
    errno.EPERM: "correct its owner or its permissions",
    errno.EISDIR: "move away the folder of this name",
    errno.ENOTDIR: "move away the file that is where its folder belongs",
    errno.EEXIST: "move away the file that is where its folder belongs",
}


def cannot_write(path: Path, error: OSError) -> InputError:
    """The error of a run that cannot write any more."""
    remedy = _REMEDIES.get(error.errno or 0, "make room")
    option = "--weights-folder" if path.suffix in OF_WEIGHTS else "--out (out= in Python)"
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}); every finished cell is kept: {remedy}, or give "
        f"another folder with {option}, and the same command goes on from there"
    )


def temporary_folder(prefix: str, who: str, instead: str = "") -> tempfile.TemporaryDirectory[str]:
    """A folder for the time of a ``with``, whose name begins with ``prefix``.

    Raises `InputError` where none can be made. The message begins with ``who`` wants it, and says what would do
    ``instead``.
    """
    try:
        return tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise InputError(
            f"{who}: no temporary folder can be made ({error.strerror or error}); {instead}name one that can be "
            "written with the environment variable TMPDIR"
        ) from error


def cache_folder(name: str) -> Path | None:
    """A folder of what was computed once, in ``$EPSBENCH_CACHE`` or ``~/.cache/epsbench``.

    None where none can be written: then everything is computed every time.
    """
    place = os.environ.get("EPSBENCH_CACHE") or os.path.expanduser("~/.cache/epsbench")  # noqa: PTH111
    folder = Path(place) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
