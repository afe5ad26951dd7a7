"""The records of results folders, ready for a report: checked, and the current ones apart from superseded ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import weights_code
from epsbench.harness.records import Record, is_there, read_records
from epsbench.harness.records.tables import canonical
from epsbench.harness.report.results.cells import way
from epsbench.harness.report.results.checking import check_cell
from epsbench.harness.report.results.joining import Conflict, Located, join
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.results.units import visible


@dataclass(frozen=True)
class Results:
    """What a report is made from."""

    folder: Path
    """The results folder; of several, the first."""
    current: tuple[Record, ...]
    """The newest record of every cell, of the models as they were measured last."""
    superseded: tuple[Record, ...]
    """The rest: cells that were measured again with another version of an attack, and those of a model that is another
    one now: its code, its weights, or what it is trained with."""
    homes: Mapping[str, Path] = field(default_factory=dict)
    """The folder of each record, by its id."""
    conflicts: tuple[Conflict, ...] = ()
    """The cells on which several folders disagree."""

    def home(self, record: Record) -> Path:
        """The folder that a record lies in."""
        return self.homes.get(record.id, self.folder)

    @property
    def robustness(self) -> list[Record]:
        """The records of classifiers attacked along their own gradients."""
        return [record for record in self._on_clean_images if "source" not in record.cell]

    @property
    def transfer(self) -> list[Record]:
        """The records of classifiers tested on images that were made on another model."""
        return [record for record in self._on_clean_images if "source" in record.cell]

    @property
    def corrupted(self) -> list[Record]:
        """The records of classifiers on corrupted images."""
        return [record for record in self._classifiers if "corruption" in record.cell]

    @property
    def _on_clean_images(self) -> list[Record]:
        kept = (record for record in self._classifiers if "corruption" not in record.cell)
        return [record for record in kept if record.cell["attack"]["name"] != "none"]

    @property
    def _classifiers(self) -> list[Record]:
        return [record for record in self.current if record.cell["task"] == "robustness"]

    @property
    def generation(self) -> list[Record]:
        """The records of generative models."""
        return [record for record in self.current if record.cell["task"] == "generation"]

    @cached_property
    def names(self) -> Names:
        """Short labels for the current cells."""
        return Names(record.cell for record in self.current)

    @property
    def suites(self) -> list[str]:
        """The suites the records come from, in the order of their first record."""
        return list(self.questions)

    @property
    def questions(self) -> dict[str, str]:
        """The description of each of these suites by its name, the newest one; empty where its records have none."""
        descriptions: dict[str, str] = {}
        for record in self.current:
            if record.suite:
                name = visible(record.suite)
                descriptions[name] = visible(record.description) or descriptions.get(name, "")
        return descriptions


def load_results(*folders: Path, mixed: bool = False) -> Results:
    """Read results folders, several of them as one set (see `epsbench.harness.report.results.joining`).

    ``mixed`` keeps the newest record of every cell, also where other cells of its model have a later version of it:
    for readers of single cells.

    Raises one `InputError`, with the remedy, when a folder is missing, empty or holds a bad record.
    """
    problems: list[str] = []
    located: list[Located] = []
    # A loop of symbolic links cannot be resolved; it is not there.
    for folder in {folder.resolve() if is_there(folder) else folder: folder for folder in folders}.values():
        try:
            located += [(folder, record) for record in _read(folder)]
        except InputError as error:
            problems += error.messages
    if problems:
        raise InputError(problems)
    kept, conflicts = join(located)
    kept.sort(key=lambda entry: (entry[1].started, entry[1].id))
    newest: dict[str, Record] = {}
    models: dict[str, dict[str, str]] = {}
    for _, record in sorted(kept, key=lambda entry: (entry[1].finished, entry[1].started, entry[1].id)):
        newest[canonical(record.cell)] = record
        models[_model(record)] = weights_code(record.code)
    # Otherwise one row of a table would have cells of two models, under one name.
    current = {each.id for each in newest.values() if mixed or weights_code(each.code) == models[_model(each)]}
    return Results(
        folders[0],
        tuple(record for _, record in kept if record.id in current),
        tuple(record for _, record in kept if record.id not in current),
        {record.id: folder for folder, record in kept},
        tuple(conflict for conflict in conflicts if conflict.record.id in current),
    )


def _model(record: Record) -> str:
    """What a suite says of a record's model. Records that are equal here are of one model, or of versions of it."""
    return canonical({**way(record.cell), "seed": record.cell["seed"]})


def _read(folder: Path) -> list[Record]:
    """The checked records of one folder."""
    how = f"`epsbench run SUITE --out {shlex.quote(str(folder))}` measures a suite into it"
    if not is_there(folder) or not folder.is_dir():
        raise InputError(f"{folder}: no such results folder; {how}")
    records = read_records(folder)
    if not records:
        raise InputError(f"{folder}: holds no records that this version of epsbench reads; {how}")
    if problems := [problem for record in records for problem in check_cell(folder, record)]:
        raise InputError(problems)
    return records
