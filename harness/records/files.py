"""The files of a results folder that hold records: their names, and how they are written and read. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from epsbench.harness.digest import cell_id
from epsbench.harness.errors import InputError
from epsbench.harness.files import DAMAGED_ARCHIVE, cannot_read, cannot_write, keep, keep_archive
from epsbench.harness.migrations import (
    SCHEMA_VERSION,
    OtherSchemaError,
    keep_other_version,
    left_out,
    migrated,
    warn_left_out,
)
from epsbench.harness.records.format import Record
from epsbench.harness.statistics import ends

# Far above what a run writes: 100 images take 34 bytes of verdicts, and an epoch takes about 100 bytes of curves.
LARGEST_RECORD = 32 << 20


LARGEST_PICTURES = 512 << 20


_ROUNDING = 1e-6  # of an accuracy: a share of at most some millions of examples
ALIKE = ("code", "training", "evaluation", "curves", "environment")
"""Fields in which many records of a folder are equal."""
PACKED = ("verdicts", "distances", "predictions")
"""Fields that hold a value for every example, each unpacked once when a record is read."""


def record_path(results: Path, identity: str) -> Path:
    """The file of the record with this id."""
    return results / "cells" / f"{identity}.json"


def images_path(results: Path, identity: str) -> Path:
    """The file of the adversarial images of the cell with this id, where they were kept."""
    return results / "images" / f"{identity}.npz"


def kept_images(results: Path, identity: str) -> float:
    """Of how many test images the adversarial ones were kept; infinity: of all that the cell was measured on."""
    try:
        with np.load(images_path(results, identity), allow_pickle=False) as archive:
            count = len(archive["labels"])
            return count if "of" in archive.files and count < int(archive["of"]) else float("inf")
    except FileNotFoundError:
        return 0
    except DAMAGED_ARCHIVE:  # as if there were none: the next run writes it anew
        return 0


def write_record(results: Path, record: Record) -> Path:
    """Write a record atomically and return its path. Raises `InputError` when it cannot be written.

    A record of another version of the format is not replaced: it is kept beside the new one.
    """
    path = record_path(results, record.id)
    try:
        if path.is_file():
            keep_other_version(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    keep(path, (record.model_dump_json(indent=1) + "\n").encode())
    return path


def read_record(path: Path) -> Record:
    """Read one record, of an earlier version of the format too where it can be migrated.

    Raises `InputError`, with the file and what to do, when it is not a valid record; the subclass `OtherSchemaError`
    when it is one of another version of the format.
    """
    remedy = "delete the file and run the suite again to measure this cell anew"
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise InputError(f"{path}: not a record: no regular file; {remedy}")
        with path.open("rb") as file:
            text = file.read(LARGEST_RECORD + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(text) > LARGEST_RECORD:
        raise InputError(f"{path}: not a record: larger than {LARGEST_RECORD >> 20} MiB; {remedy}")
    try:
        record, as_written = _parsed(path, text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: not a record: {where}: {first['msg']}; {remedy}") from error
    if record.id != path.stem:
        raise InputError(f"{path}: holds the record of cell {record.id}, not of {path.stem}; {remedy}")
    for name in PACKED:
        try:
            if (packed := getattr(record, name)) is not None:
                packed.unpack()
                _require_as_many(packed.n, record)
        except ValueError as error:
            raise InputError(f"{path}: not a record: {name}: {error}; {remedy}") from error
    try:
        if as_written and record.id != cell_id(record.cell, record.code):
            raise ValueError("its id is not that of its cell and code")
        _require_agreement(record)
    except ValueError as error:
        raise InputError(f"{path}: was changed after it was written: {error}; {remedy}") from error
    return record


def _require_agreement(record: Record) -> None:
    """Raise `ValueError` for an accuracy that is not the one of the verdicts, or a number outside its own interval.

    A record is not signed: this finds what was edited by hand or by mistake, and no forgery.
    """
    for name, metric in record.metrics.items():
        low, high = ends(metric.value, metric.low, metric.high)
        if not low - _ROUNDING <= metric.value <= high + _ROUNDING:
            raise ValueError(f"{name} is {metric.value:g}, outside its interval from {low:g} to {high:g}")
    if record.verdicts is None or not record.verdicts.n:
        return
    for name, verdicts in zip(("clean_accuracy", "robust_accuracy"), record.verdicts.unpack(), strict=True):
        if name in record.metrics and abs(record.metrics[name].value - verdicts.mean()) > _ROUNDING:
            raise ValueError(f"{name} is {record.metrics[name].value:g}, and its verdicts say {verdicts.mean():g}")


def _require_as_many(n: int, record: Record) -> None:
    """Raise `ValueError` unless there are ``n`` verdicts."""
    if record.verdicts is None or record.verdicts.n != n:
        raise ValueError(f"{n} examples, and {record.verdicts.n if record.verdicts else 0} verdicts")


def _parsed(path: Path, text: bytes) -> tuple[Record, bool]:
    """The record of this text, and whether its version is today's, so that nothing in it was migrated.

    Raises `ValidationError` where it is none, and as `migrated`.
    """
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        if (changed := migrated(path, text)) is None:
            raise
    else:
        if record.schema_version == SCHEMA_VERSION or (changed := migrated(path, text)) is None:
            return record, True
    try:
        return Record.model_validate_json(changed), False
    except ValidationError as error:
        raise OtherSchemaError(left_out(path, text)) from error


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder.

    Raises `InputError` where the system does not say: the name is too long, or a folder above gives no permission.
    """
    try:
        return path.exists()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); check its name and permissions"
        ) from error


def find_record(results: Path, identity: str) -> Record | None:
    """The record of the cell with this id; None where there is none, or one of another version of the format.

    Warns of the latter (`RecordWarning`). Raises `InputError` where the file is no valid record.
    """
    path = record_path(results, identity)
    if not is_there(path):
        return None
    try:
        return read_record(path)
    except OtherSchemaError as error:
        warn_left_out(error.messages)
        return None


def read_records(results: Path) -> list[Record]:
    """All records of a results folder, oldest first.

    Records of another version of the format that cannot be migrated are left out, with a `RecordWarning` each. Raises
    one `InputError` that names every unreadable file.
    """
    records: list[Record] = []
    problems: list[str] = []
    once: dict[tuple[str, str], Any] = {}
    for path in sorted((results / "cells").glob("*.json")):
        try:
            record = read_record(path)
            # Most records of a folder agree in these parts. Kept once, they leave half of the memory.
            same = {
                name: once.setdefault((name, repr(value)), value) for name in ALIKE if (value := getattr(record, name))
            }
            records.append(record.model_copy(update=same))
        except OtherSchemaError as error:
            warn_left_out(error.messages)
        except InputError as error:
            problems.extend(error.messages)
    if problems:
        raise InputError(problems)
    return sorted(records, key=lambda record: (record.started, record.id))


def write_pictures(results: Path, identity: str, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays that a cell's figures are drawn from. They are written before the record that mentions them."""
    keep_archive(results / "pictures" / f"{identity}.npz", arrays, compressed=True)


def read_pictures(results: Path, record: Record) -> dict[str, np.ndarray]:
    """The arrays stored with a record; empty when it has none or the file is gone.

    Raises `InputError` when the file is damaged.
    """
    path = results / "pictures" / f"{record.id}.npz"
    if not record.pictures or not path.is_file():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            size = sum(member.file_size for member in archive.zip.infolist())
            if size > LARGEST_PICTURES:
                raise ValueError(f"{size >> 20} MiB when unpacked, more than {LARGEST_PICTURES >> 20}")
            return {name: archive[name] for name in archive.files}
    except DAMAGED_ARCHIVE as error:
        raise InputError(f"{path}: not a picture archive ({error}); delete it and its record, run again") from error
