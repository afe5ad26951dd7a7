"""Records of several results folders as one set: the same cell once, and told where two folders disagree on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from epsbench.harness.records import Record

Found = tuple[Path, Record]
"""A record and the results folder it lies in."""


@dataclass(frozen=True)
class Conflict:
    """A cell that several folders hold with different numbers. ``shown`` is the folder whose record is kept."""

    record: Record
    shown: Path
    others: tuple[Path, ...]


def join(found: Iterable[Found]) -> tuple[list[Found], list[Conflict]]:
    """The records with every id once, in the order of their first sight, and the conflicts among them.

    Of several records of a cell the newest stands; one that failed stands only where no other did not, and is no
    conflict with those: a cell that failed in one place and was measured in another is measured.
    """
    by_id: dict[str, list[Found]] = defaultdict(list)
    for folder, record in found:
        by_id[record.id].append((folder, record))
    kept, conflicts = [], []
    for group in by_id.values():
        folder, record = max(group, key=lambda held: (held[1].status != "failed", held[1].finished))
        kept.append((folder, record))
        differing = [where for where, other in group if other.status != "failed" and not _same(record, other)]
        if differing:
            conflicts.append(Conflict(record, folder, tuple(differing)))
    return kept, conflicts


def _same(a: Record, b: Record) -> bool:
    """Whether two records of a cell say the same about its model."""
    return (a.status, a.metrics, a.verdicts) == (b.status, b.metrics, b.verdicts)
