"""What a results folder holds: each record is read once, however often a run asks. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.plan.index_file import FEWEST, Stored, add_to_index, entry_of, read_index
from epsbench.harness.plan.names.stamp import FileStamp, stamp_of
from epsbench.harness.plan.recorded_entry import Entry as Entry
from epsbench.harness.plan.recorded_entry import model_key as model_key
from epsbench.harness.records import LARGEST_RECORD, Record, find_record, is_there, record_path


class RecordIndex:
    """The records of one results folder. A file is read at the first question, and again only once it is replaced."""

    def __init__(self, results: Path) -> None:
        """``results`` is the results folder; it need not exist."""
        self.results = results
        self._entries: dict[str, Entry] = {}
        self._stamps: dict[str, FileStamp] = {}
        self._by_weights: dict[str, dict[str, Entry]] | None = None
        self._unreadable: dict[str, InputError] = {}
        self._stored: Stored | None = None
        self._unsaved: set[str] = set()

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
            entry = self._from_index(identity, stamp)
            if entry is None and (entry := self._read(identity)) is None:
                return None
            self._keep(entry, stamp)
        return self._entries[identity]

    def known(self, identity: str) -> Entry | None:
        """What was read of this cell's record already; nothing is read."""
        return self._entries.get(identity)

    def add(self, record: Record) -> None:
        """Take over a record that was just written."""
        stamp = self._stamp(record.id)
        self._forget(record.id)
        if stamp is not None:
            self._keep(Entry.of(record), stamp)
            self._unsaved.add(record.id)

    def save(self) -> None:
        """Put what was read or added since into the index on disk, where it is much."""
        fresh = [(self._stamps[each], self._entries[each]) for each in sorted(self._unsaved) if each in self._entries]
        if len(fresh) < FEWEST:
            return
        stored = self._stored or {}
        # Lines of replaced and deleted records add up: the file is written anew before they are more than the rest.
        anew = not stored or sum(each in stored for each, _ in self._stamps.items()) < len(stored) / 2
        kept = [(self._stamps[each], self._entries[each]) for each in sorted(self._entries)] if anew else fresh
        add_to_index(self.results, kept, anew)
        self._unsaved = set()

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
        for identity in [each.id for each in self._by_weights.get(weights, {}).values() if not each.whole]:
            if (entry := self._read(identity)) is not None and (stamp := self._stamp(identity)) is not None:
                self._keep(entry, stamp)
        return sorted(self._by_weights.get(weights, {}).values(), key=lambda entry: entry.id)

    def list_again(self) -> None:
        """Look for records that other processes have written since, at the next call of `of_weights`."""
        self._by_weights = None

    def moved(self, results: Path) -> RecordIndex:
        """The same index, for another path of the same folder."""
        moved = RecordIndex(results)
        moved._entries, moved._stamps = dict(self._entries), dict(self._stamps)
        moved._stored, moved._unsaved = self._stored, set(self._unsaved)
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

    def _from_index(self, identity: str, stamp: FileStamp) -> Entry | None:
        """What the index on disk says of a record whose file has this stamp."""
        if self._stored is None:
            self._stored = read_index(self.results)
        before, values = self._stored.get(identity, (None, []))
        return entry_of(values) if before == stamp else None

    def _read(self, identity: str) -> Entry | None:
        record = find_record(self.results, identity)
        if record is None:
            return None
        self._unsaved.add(identity)
        return Entry.of(record)

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
        try:
            return stamp_of(path)
        except OSError:
            return stamp_of(path) if is_there(path) else None


def _content(path: Path) -> bytes:
    """A file's first bytes, as many as a record may have; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_RECORD)
    except OSError:
        return b""
