"""Whether a file has changed since it was read: by its stamp, and by its content where the stamp cannot show it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from epsbench.harness.files import JUST_WRITTEN_NS, FileStamp, stamp_of


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
            if stamp_of(path) == self._stamp and self._read_ns - self._stamp[0] > JUST_WRITTEN_NS:
                return True
            fresh, _ = self.of(path)
        except OSError:
            return False
        if fresh._digest != self._digest:
            return False
        self._stamp, self._read_ns = fresh._stamp, fresh._read_ns
        return True
