"""What the judge answered on every test image before and after an attack, packed for a record. No torch."""

from __future__ import annotations

import base64
import sys
import zlib
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

STEPS = 254
"""Confidences are kept in steps of 1/254, so they are at most 0.2 percentage points off."""
UNKNOWN = 255
"""The step of a confidence that is not known."""

# Cells of one model have some of these texts in common: each is then in memory once.
Shared = Annotated[str, AfterValidator(sys.intern)]


class Answers(NamedTuple):
    """Labels, classes and confidences of n test images, each an array (n,)."""

    labels: np.ndarray
    """The labels."""
    clean: np.ndarray
    """The class that the judge sees in the image without an attack."""
    adversarial: np.ndarray
    """The class that it sees in the image under the attack."""
    clean_confidence: np.ndarray
    """The probability that it gives its class without an attack; NaN: not known."""
    adversarial_confidence: np.ndarray
    """The same under the attack. NaN: no image was judged, as the verdict follows from another ε."""


class Predictions(BaseModel):
    """`Answers` of the n test images, in the order of the test split; bytes of zlib as base64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=0)
    """The number of examples."""
    classes: int = Field(ge=1, le=2**16)
    """The number of classes K. A class takes one byte, of more than 256 classes two, little-endian."""
    labels: Shared = Field(repr=False)
    """The labels."""
    clean: Shared = Field(repr=False)
    """The class without an attack, less the label, modulo K."""
    adversarial: str = Field(repr=False)
    """The class under the attack, less the class without one, modulo K."""
    clean_confidence: Shared = Field(repr=False)
    """The confidence without an attack, a byte each, in steps of 1/254; 255: not known."""
    adversarial_confidence: str = Field(repr=False)
    """The same under the attack."""

    @classmethod
    def pack(cls, answers: Answers, classes: int) -> Predictions:
        """Pack answers. Differences of classes are mostly 0, so they take little room."""
        kind = _kind(classes)
        labels, clean, adversarial = (np.asarray(each).astype(np.int64) for each in answers[:3])
        return cls(
            n=len(labels),
            classes=classes,
            labels=_packed(labels.astype(kind)),
            clean=_packed(((clean - labels) % classes).astype(kind)),
            adversarial=_packed(((adversarial - clean) % classes).astype(kind)),
            clean_confidence=_packed(_steps(answers.clean_confidence)),
            adversarial_confidence=_packed(_steps(answers.adversarial_confidence)),
        )

    def unpack(self) -> Answers:
        """The answers. Raises `ValueError` where there are fewer or more than ``n``, or a class is not below K."""
        kind = _kind(self.classes)
        labels, clean, adversarial = (
            _unpacked(text, self.n, kind).astype(np.int64) for text in (self.labels, self.clean, self.adversarial)
        )
        if max(int(each.max(initial=0)) for each in (labels, clean, adversarial)) >= self.classes:
            raise ValueError(f"a packed class is not one of the {self.classes}")
        clean = (clean + labels) % self.classes
        confidences = [
            _confidence(_unpacked(text, self.n, np.dtype("u1")))
            for text in (self.clean_confidence, self.adversarial_confidence)
        ]
        return Answers(labels, clean, (adversarial + clean) % self.classes, *confidences)


def _kind(classes: int) -> np.dtype:
    return np.dtype("u1" if classes <= 256 else "<u2")


def _steps(confidence: np.ndarray) -> np.ndarray:
    steps = np.rint(np.clip(np.nan_to_num(confidence), 0, 1) * STEPS)
    return np.where(np.isfinite(confidence), steps, UNKNOWN).astype("u1")


def _confidence(steps: np.ndarray) -> np.ndarray:
    return np.where(steps == UNKNOWN, np.nan, steps / STEPS)


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode("ascii")


def _unpacked(text: str, n: int, kind: np.dtype) -> np.ndarray:
    size = n * kind.itemsize
    unpacker = zlib.decompressobj()
    try:
        # No more than a byte too many is unpacked, whatever the text holds.
        raw = unpacker.decompress(base64.b64decode(text, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(f"packed values cannot be unpacked ({error})") from error
    if len(raw) != size or not unpacker.eof:
        raise ValueError(f"other than the {n} packed values that are promised")
    return np.frombuffer(raw, dtype=kind)
