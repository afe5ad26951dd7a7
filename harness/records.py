"""The record of a finished cell: its format, and how it is written and read. No torch.

A record is a JSON file, ``RESULTS/cells/<id>.json``. Its pictures, if it has any, are in ``RESULTS/pictures/<id>.npz``.
``docs/records.md`` documents every field.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from epsbench.harness.errors import InputError
from epsbench.harness.files import DAMAGED_ARCHIVE, archive_of, cannot_write, keep
from epsbench.harness.findings import Finding
from epsbench.harness.migrations import (
    SCHEMA_VERSION,
    OtherSchemaError,
    keep_other_version,
    left_out,
    migrated,
    warn_left_out,
)

# Far above what a run writes: 100 images take 34 bytes of verdicts, and an epoch takes about 100 bytes of curves.
LARGEST_RECORD = 32 << 20
LARGEST_PICTURES = 512 << 20
Status = Literal["ok", "failed", "void"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Metric(_Part):
    """A measured number."""

    value: FiniteFloat
    low: FiniteFloat | None = None
    """The lower end of its 95 % interval; None: it has no interval."""
    high: FiniteFloat | None = None
    """The upper end."""
    n: int | None = Field(default=None, ge=0)
    """The number of examples that it was measured on."""


class Failure(_Part):
    """The exception with which a cell failed: its type, message and traceback."""

    type: str
    message: str
    traceback: str


class Verdicts(_Part):
    """The verdicts on every example, in the order of the test split: bits as base64, most significant bit first."""

    n: int = Field(ge=0)
    """The number of examples."""
    clean: str
    """Bits: whether the model is right on the clean image."""
    robust: str
    """Bits: whether it is right there and after the attack."""

    @classmethod
    def pack(cls, clean: np.ndarray, robust: np.ndarray) -> Verdicts:
        """Pack two boolean arrays of shape (n,): right on the clean image; right there and after the attack."""
        return cls(n=len(clean), clean=pack_bits(clean), robust=pack_bits(robust))

    def unpack(self) -> tuple[np.ndarray, np.ndarray]:
        """The two boolean arrays of shape (n,) that `pack` took."""
        return unpack_bits(self.clean, self.n), unpack_bits(self.robust, self.n)


class Distances(_Part):
    """The distance of the nearest adversarial image of every example, in the order of the test split."""

    n: int = Field(ge=0)
    """The number of examples."""
    values: str
    """Little-endian float32 as base64: 0 where the clean image is misclassified, ∞ where no image was reached."""

    @classmethod
    def pack(cls, distances: np.ndarray) -> Distances:
        """Pack distances (n,)."""
        return cls(n=len(distances), values=base64.b64encode(distances.astype("<f4").tobytes()).decode("ascii"))

    def unpack(self) -> np.ndarray:
        """The distances (n,). Raises `ValueError` where there are fewer or more, or one that is no distance."""
        values = np.frombuffer(base64.b64decode(self.values, validate=True), dtype="<f4")
        if len(values) != self.n:
            raise ValueError(f"{len(values)} packed distances where {self.n} are promised")
        if not (values >= 0).all():
            raise ValueError("a packed distance is negative or NaN")
        return values


class Part(_Part):
    """One part of an ensemble of attacks: what it was tried on, and what it left."""

    name: str
    """Its name, such as ``apgd-t``."""
    robust_accuracy: Metric
    """The robust accuracy after it."""
    attacked: int = Field(ge=0)
    """How many images it was tried on: those that withstood the parts before."""
    fooled: str
    """Bits as base64: which test images it fooled."""
    cost: dict[str, Any] = Field(default_factory=dict)
    """Seconds and passes."""


ALIKE = ("code", "training", "evaluation", "curves", "environment")
"""Fields in which many records of a folder are equal."""


class Record(BaseModel):
    """Everything that is kept of one cell."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int = Field(default=SCHEMA_VERSION, strict=True)
    id: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    """A hash of ``cell`` and ``code``; also the file's name."""
    status: Status
    """``ok``; ``failed``: the cell raised an exception; ``void``: an audit says that its numbers mean nothing."""
    suite: str = ""
    """The suite that ran the cell."""
    description: str = ""
    """That suite's description."""
    cell: dict[str, Any]
    """The cell in canonical form, every default filled in."""
    code: dict[str, str] = Field(default_factory=dict)
    """Kind of name → version of the code behind it; ``data`` is the identity of the split."""
    metrics: dict[str, Metric] = Field(default_factory=dict)
    """What was measured, by name."""
    cost: dict[str, Any] = Field(default_factory=dict)
    """What measuring took: seconds, passes, memory."""
    training: dict[str, Any] = Field(default_factory=dict)
    """What training took, and the digest of the weights."""
    evaluation: dict[str, Any] = Field(default_factory=dict)
    """What the measures depend on besides the model."""
    curves: dict[str, list[FiniteFloat]] = Field(default_factory=dict)
    """Numbers by epoch, by number of samples or by latent dimension."""
    verdicts: Verdicts | None = None
    """The verdicts of a robustness cell on every example."""
    distances: Distances | None = None
    """Of an attack that looks for the smallest distance: those of every example. They do not depend on the cell's ε."""
    parts: tuple[Part, ...] = ()
    """Of an ensemble of attacks: its parts, in their order."""
    adapted: dict[str, Any] = Field(default_factory=dict)
    """What the attack changed because the data has few classes."""
    findings: tuple[Finding, ...] = ()
    """Remarks of the audits."""
    failure: Failure | None = None
    """The exception of a failed cell."""
    pictures: bool = False
    """Whether there is a ``pictures/<id>.npz``."""
    environment: dict[str, Any] = Field(default_factory=dict)
    """Versions, device and flags."""
    started: str = ""
    """UTC, ISO 8601."""
    finished: str = ""
    """UTC, ISO 8601."""


def pack_bits(bits: np.ndarray) -> str:
    """A boolean array as base64 text, eight examples a byte."""
    return base64.b64encode(np.packbits(np.asarray(bits, dtype=bool)).tobytes()).decode("ascii")


def unpack_bits(text: str, n: int) -> np.ndarray:
    """The first ``n`` booleans that `pack_bits` packed. Raises `ValueError` when there are fewer."""
    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(packed) * 8 < n:
        raise ValueError(f"{len(packed) * 8} packed bits where {n} are promised")
    return np.unpackbits(packed)[:n].astype(bool)


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
        raise InputError(cannot_write(path, error)) from error
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
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    if len(text) > LARGEST_RECORD:
        raise InputError(f"{path}: not a record: larger than {LARGEST_RECORD >> 20} MiB; {remedy}")
    try:
        record = _parsed(path, text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: not a record: {where}: {first['msg']}; {remedy}") from error
    if record.id != path.stem:
        raise InputError(f"{path}: holds the record of cell {record.id}, not of {path.stem}; {remedy}")
    if record.verdicts is not None:
        try:
            record.verdicts.unpack()
        except ValueError as error:
            raise InputError(f"{path}: not a record: verdicts: {error}; {remedy}") from error
    if record.distances is not None:
        try:
            record.distances.unpack()
        except ValueError as error:
            raise InputError(f"{path}: not a record: distances: {error}; {remedy}") from error
    return record


def _parsed(path: Path, text: bytes) -> Record:
    """The record of this text. Raises `ValidationError` where it is none, and as `migrated`."""
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        if (changed := migrated(path, text)) is None:
            raise
    else:
        if record.schema_version == SCHEMA_VERSION or (changed := migrated(path, text)) is None:
            return record
    try:
        return Record.model_validate_json(changed)
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
    keep(results / "pictures" / f"{identity}.npz", archive_of(arrays))


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
