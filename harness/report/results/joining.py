"""Records of several results folders as one set, each cell once, and the cells on which folders disagree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from epsbench.harness.records import Record

Located = tuple[Path, Record]
"""A record and the results folder it lies in."""


@dataclass(frozen=True)
class Conflict:
    """A cell that several folders hold with different numbers."""

    record: Record
    """The record that is kept."""
    shown: Path
    """The folder of that record."""
    others: tuple[Path, ...]
    """The folders whose records say something else."""


def join(located: Iterable[Located]) -> tuple[list[Located], list[Conflict]]:
    """The records with every id once, in the order they came in, and the conflicts among them.

    Of several records of a cell the newest is kept. A failed record is kept only where all of them failed, and makes
    no conflict: a cell that failed in one folder and was measured in another counts as measured.
    """
    by_id: dict[str, list[Located]] = defaultdict(list)
    for folder, record in located:
        by_id[record.id].append((folder, record))
    kept, conflicts = [], []
    for group in by_id.values():
        folder, record = max(group, key=lambda entry: (entry[1].status != "failed", entry[1].finished))
        kept.append((folder, record))
        differing = [where for where, other in group if other.status != "failed" and not _same(record, other)]
        if differing:
            conflicts.append(Conflict(record, folder, tuple(differing)))
    return kept, conflicts


def _same(a: Record, b: Record) -> bool:
    """Whether two records of a cell have the same status, metrics and verdicts."""
    return (a.status, a.metrics, a.verdicts) == (b.status, b.metrics, b.verdicts)
