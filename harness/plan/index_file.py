"""The index of a results folder on disk: of each record the part that plans need, so that no plan reads all records.

``RESULTS/.index`` has a line of JSON for each record, with the stamp of the record's file. A line counts only while
the file still has that stamp, and the last line of a record is the one that counts. The index may be deleted at any
time: what it lacks is read from the records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from epsbench.harness.plan.names.stamp import FileStamp
from epsbench.harness.plan.recorded_entry import Entry, Timing

NAME = ".index"
VERSION = 1
"""Of the lines. With another one the whole file is ignored, and written anew."""
FEWEST = 50
"""Fewer new entries than this are not worth a file: reading so many records takes a few hundredths of a second."""

Stored = dict[str, tuple[FileStamp, list[Any]]]
"""Id of a cell → the stamp of its record's file, and what `entry_of` takes."""

_SIMPLE = ("id", "status", "weights", "cell", "cost", "finished", "model")
_TIMING = tuple(each.name for each in fields(Timing))


def read_index(results: Path) -> Stored:
    """What the index of a results folder holds; empty where there is none, or one that cannot be read."""
    stored: Stored = {}
    try:
        with (results / NAME).open("rb") as file:
            if file.readline().strip() != _head():
                return {}
            for line in file:
                try:
                    stamp, values = json.loads(line)
                    stored[values[0]] = (tuple(stamp), values)
                except (ValueError, TypeError, LookupError):  # the end of a killed run; that record is read again
                    continue
    except OSError:
        return {}
    return stored


def entry_of(values: list[Any]) -> Entry | None:
    """The entry of a stored line; None where the line is damaged. Verdicts are not stored: ``whole`` says so."""
    try:
        simple = dict(zip(_SIMPLE, values[: len(_SIMPLE)], strict=True))
        timing = Timing(**dict(zip(_TIMING, values[-2], strict=True)))
        return Entry(**simple, timing=timing, whole=bool(values[-1]))
    except (ValueError, TypeError, LookupError):
        return None


def add_to_index(results: Path, entries: Iterable[tuple[FileStamp, Entry]], anew: bool) -> None:
    """Append entries, or write the file ``anew`` with these alone. A folder that cannot be written has no index."""
    lines = [json.dumps([stamp, _values(entry)], separators=(",", ":")).encode() for stamp, entry in entries]
    path = results / NAME
    try:
        fresh = anew or not path.is_file()
        text = b"\n".join([*([_head()] if fresh else [b""]), *lines, b""])
        with path.open("wb" if fresh else "ab") as file:
            file.write(text)
    except OSError:  # read-only, or full: the index only saves time
        return


def _head() -> bytes:
    return json.dumps({"epsbench index": VERSION}).encode()


def _values(entry: Entry) -> list[Any]:
    simple = [getattr(entry, name) for name in _SIMPLE]
    return [*simple, list(asdict(entry.timing).values()), entry.verdicts is None and entry.whole]
