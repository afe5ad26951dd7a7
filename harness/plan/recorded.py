"""What a results folder holds: each record is read once, however often a run asks. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import digest
from epsbench.harness.plan.names.stamp import FileStamp, stamp_of
from epsbench.harness.records import LARGEST_RECORD, Record, Status, Verdicts, find_record, is_there, record_path

CELL_KEYS = ("attack", "norm", "eps")
COST_KEYS = ("forwards", "backwards", "shared_backwards")
MODEL_KEYS = ("data", "model", "defense", "augmentation", "subset", "start", "seed", "test_images")


def model_key(cell: Mapping[str, Any], code: Mapping[str, str]) -> str:
    """A hash of what makes a cell's model besides its weights: its axes as a record holds them, and its code."""
    return digest({"cell": {key: cell[key] for key in MODEL_KEYS if key in cell}, "code": code.get("model", "")})


@dataclass(frozen=True)
class Entry:
    """The part of a record that a run needs again. Whole records of a large suite would not fit in memory."""

    id: str
    """The cell's id."""

    status: Status
    """Of the record: ok, failed or void."""

    weights: str = ""
    """The SHA-256 of the trained weights, empty where the record names none."""

    cell: Mapping[str, Any] = field(default_factory=dict)
    """Attack, norm and ε of a robustness cell, as in the record."""

    cost: Mapping[str, Any] = field(default_factory=dict)
    """Forwards and backwards, as in the record."""

    finished: str = ""
    """When it was measured, UTC, ISO 8601."""

    verdicts: Verdicts | None = None
    """Of a measured robustness cell whose attack followed the gradients of the model itself, else None."""

    model: str = ""
    """The `model_key` of its cell."""

    @classmethod
    def of(cls, record: Record) -> Entry:
        """The entry of a record."""
        # Adversarial images made on another model do not show how strong an attack is on this one.
        white_box = record.cell.get("task") == "robustness" and not {"source", "corruption"} & record.cell.keys()
        return cls(
            id=record.id,
            status=record.status,
            weights=str(record.training.get("weights_sha256", "")),
            cell={key: record.cell[key] for key in CELL_KEYS if key in record.cell},
            cost={key: record.cost[key] for key in COST_KEYS if key in record.cost},
            verdicts=record.verdicts if white_box and record.status == "ok" else None,
            model=model_key(record.cell, record.code),
            finished=record.finished,
        )


class RecordIndex:
    """The records of one results folder. A file is read at the first question, and again only once it is replaced."""

    def __init__(self, results: Path) -> None:
        """``results`` is the results folder; it need not exist."""
        self.results = results
        self._entries: dict[str, Entry] = {}
        self._stamps: dict[str, FileStamp] = {}
        self._by_weights: dict[str, dict[str, Entry]] | None = None
        self._unreadable: dict[str, InputError] = {}

    def entry(self, identity: str) -> Entry | None:
        """What is recorded of the cell with this id, or None.

        A record of another version of the format counts as none, with a warning: the next run measures the cell again.
        Raises `InputError` where the record cannot be read.
        """
        stamp = self._stamp(identity)
        if stamp is None:
            self._forget(identity)
            return None
        if self._stamps.get(identity) != stamp:
            self._forget(identity)
            record = find_record(self.results, identity)
            if record is None:
                return None
            self._keep(Entry.of(record), stamp)
        return self._entries[identity]

    def add(self, record: Record) -> None:
        """Take over a record that was just written."""
        stamp = self._stamp(record.id)
        self._forget(record.id)
        if stamp is not None:
            self._keep(Entry.of(record), stamp)

    def is_unchanged(self, identity: str) -> bool:
        """Whether the file is still the one that was last read or added."""
        return self._stamps.get(identity) == self._stamp(identity) is not None

    def newest(self, identities: Iterable[str]) -> datetime | None:
        """When the newest record of these cells was measured, UTC; None where no record says it."""
        times: list[datetime] = []
        for identity in identities:
            entry = self.entry(identity)
            try:
                time = datetime.fromisoformat(entry.finished) if entry else None
            except ValueError:
                time = None
            if time is not None:
                times.append(time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC))
        return max(times, default=None)

    def of_weights(self, weights: str) -> list[Entry]:
        """The records of models with these trained weights (SHA-256), sorted by id.

        The folder is listed at the first call and at the next one after `list_again`. Raises `InputError` for a
        record that names the weights and cannot be read.
        """
        if self._by_weights is None:
            self._list()
        for identity, error in self._unreadable.items():
            if weights.encode() in _content(record_path(self.results, identity)):
                raise error
        assert self._by_weights is not None
        return sorted(self._by_weights.get(weights, {}).values(), key=lambda entry: entry.id)

    def list_again(self) -> None:
        """Look for records that other processes have written since, at the next call of `of_weights`."""
        self._by_weights = None

    def moved(self, results: Path) -> RecordIndex:
        """The same index, for another path of the same folder."""
        moved = RecordIndex(results)
        moved._entries, moved._stamps = dict(self._entries), dict(self._stamps)
        return moved

    def _list(self) -> None:
        """Read every record of the folder that is new or was replaced."""
        names = [path.stem for path in (self.results / "cells").glob("*.json")]
        for removed in self._entries.keys() - set(names):
            self._forget(removed)
        self._unreadable = {}
        for name in sorted(names):
            try:
                self.entry(name)
            except InputError as error:
                self._unreadable[name] = error
        self._by_weights = {}
        for entry in self._entries.values():
            self._by_weights.setdefault(entry.weights, {})[entry.id] = entry

    def _keep(self, entry: Entry, stamp: FileStamp) -> None:
        self._entries[entry.id], self._stamps[entry.id] = entry, stamp
        if self._by_weights is not None:
            self._by_weights.setdefault(entry.weights, {})[entry.id] = entry

    def _forget(self, identity: str) -> None:
        self._stamps.pop(identity, None)
        self._unreadable.pop(identity, None)
        entry = self._entries.pop(identity, None)
        if entry is not None and self._by_weights is not None:
            self._by_weights[entry.weights].pop(identity, None)

    def _stamp(self, identity: str) -> FileStamp | None:
        path = record_path(self.results, identity)
        return stamp_of(path) if is_there(path) else None


def _content(path: Path) -> bytes:
    """A file's first bytes, as many as a record may have; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_RECORD)
    except OSError:
        return b""
