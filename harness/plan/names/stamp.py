"""Whether a file has changed since it was read: by its stamp, and by its content where the stamp cannot show it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

FileStamp = tuple[int, int, int, int]
"""Times of the last write and the last change, the size, and the number of a file. A replaced file has another one."""

_RACY_NS = 50_000_000  # a file read so soon after it was written may change without a new time stamp


def stamp_of(path: Path) -> FileStamp:
    """The stamp of a file as it is now. Raises `OSError` where there is none."""
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


class Reading:
    """What a file was like when it was read."""

    def __init__(self, stamp: FileStamp, digest: bytes, read_ns: int) -> None:
        self._stamp, self._digest, self._read_ns = stamp, digest, read_ns

    @classmethod
    def of(cls, path: Path) -> tuple[Reading, bytes]:
        """Read a file; also returns its content."""
        stamp, now = stamp_of(path), time.time_ns()
        content = path.read_bytes()
        return cls(stamp, hashlib.sha256(content).digest(), now), content

    def is_current(self, path: Path) -> bool:
        """Whether the file is still the same. It is read again only where its time stamps cannot tell."""
        try:
            if stamp_of(path) == self._stamp and self._read_ns - self._stamp[0] > _RACY_NS:
                return True
            fresh, _ = self.of(path)
        except OSError:
            return False
        if fresh._digest != self._digest:
            return False
        self._stamp, self._read_ns = fresh._stamp, fresh._read_ns
        return True
