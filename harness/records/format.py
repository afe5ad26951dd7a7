"""The format of a record. ``docs/records.md`` documents every field."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from epsbench.harness.findings import Finding
from epsbench.harness.migrations import SCHEMA_VERSION
from epsbench.harness.records.predictions import Predictions

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

    @property
    def text(self) -> str:
        """``"RuntimeError: out of memory"``."""
        return f"{self.type}: {self.message}"


class Verdicts(_Part):
    """The verdicts on every example, in the order of the test split: bits as base64, most significant bit first."""

    n: int = Field(ge=0)
    """The number of examples."""
    clean: str = Field(repr=False)
    """Bits: whether the model is right on the clean image."""
    robust: str = Field(repr=False)
    """Bits: whether it is right there and after the attack."""

    @classmethod
    def pack(cls, clean: np.ndarray, robust: np.ndarray) -> Verdicts:
        """Pack two boolean arrays of shape (n,): right on the clean image; right there and after the attack."""
        return cls(n=len(clean), clean=pack_bits(clean), robust=pack_bits(robust))

    def unpack(self) -> tuple[np.ndarray, np.ndarray]:
        """The two boolean arrays of shape (n,) that `pack` took."""
        return unpack_bits(self.clean, self.n), unpack_bits(self.robust, self.n)


BALL_ROUNDING = 1e-6  # an image counts as inside a ball up to this distance outside


def within(distances: np.ndarray, eps: float) -> np.ndarray:
    """Whether images at these distances, (n,) float32, count as inside the balls of radius ``eps``, bool."""
    return distances <= eps + BALL_ROUNDING


class Distances(_Part):
    """The distance of the nearest adversarial image of every example, in the order of the test split."""

    n: int = Field(ge=0)
    """The number of examples."""
    values: str = Field(repr=False)
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
    fooled: str = Field(repr=False)
    """Bits as base64: which test images it fooled."""
    cost: dict[str, Any] = Field(default_factory=dict)
    """Seconds and passes."""


class Shard(_Part):
    """A range of the attacked images that one device attacked."""

    images: int = Field(ge=0)
    """How many."""
    device: str
    """The device's name."""
    seconds: FiniteFloat = Field(ge=0)
    """What it took there."""


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
    predictions: Predictions | None = None
    """The judge's classes and confidences of every example; None in records from before they were kept."""
    parts: tuple[Part, ...] = ()
    """Of an ensemble of attacks: its parts, in their order."""
    shards: tuple[Shard, ...] = ()
    """Of an evaluation that several devices attacked: what each did, in the order of the images."""
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

    @property
    def why(self) -> str:
        """Why the cell has no numbers that count: the message of its failure, or those of its findings."""
        return self.failure.message if self.failure else "; ".join(finding.message for finding in self.findings)


def pack_bits(bits: np.ndarray) -> str:
    """A boolean array as base64 text, eight examples a byte."""
    return base64.b64encode(np.packbits(np.asarray(bits, dtype=bool)).tobytes()).decode("ascii")


def unpack_bits(text: str, n: int) -> np.ndarray:
    """The first ``n`` booleans that `pack_bits` packed. Raises `ValueError` when there are fewer."""
    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(packed) * 8 < n:
        raise ValueError(f"{len(packed) * 8} packed bits where {n} are promised")
    return np.unpackbits(packed)[:n].astype(bool)
