"""What a source of data is: it describes itself without torch, and reads its splits as arrays."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.decoded import WorkFolder
from epsbench.harness.plan.data.ids import chosen_numbers
from epsbench.harness.plan.data.pixels import Images, chunks, taken

SEED = 42
ONE_IN = 10
"""Of training examples one in so many is set aside for validation, where there is no validation split."""
_DIGITS = 4  # of means and standard deviations, so that rounding on another machine changes no id


@dataclass(frozen=True)
class Part:
    """The examples of one split."""

    images: Images
    """(N, C, H, W): uint8 with 0 to 255, or float32 in [0, 1]; in memory or in a file."""
    labels: np.ndarray
    """(N,), int64."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray | slice) -> Part:
        """The examples at these positions, in this order."""
        return Part(taken(self.images, index), self.labels[index])


@dataclass(frozen=True)
class Splits:
    """What a source holds, in the order in which a run uses it."""

    test: Part
    train: Part | None = None
    validation: Part | None = None
    class_names: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    """Splits that it lacks, each with the reason where there is one."""
    work: WorkFolder | None = field(default=None, compare=False)
    """The folder of the images that were decoded into files, until it is kept or goes."""
    largest: int = field(default=0, compare=False)
    """The largest label of the source: that of images that are not measured on counts, too."""

    @classmethod
    def of(
        cls,
        parts: Mapping[str, Part | None],
        where: str,
        class_names: tuple[str, ...] = (),
        missing: Mapping[str, str] | None = None,
        work: WorkFolder | None = None,
        ids: Path | None = None,
    ) -> Splits:
        """The splits by name (``train``, ``validation``, ``test``); training examples are put into a random order.

        Without a validation split, the last tenth of them becomes one. ``ids`` is a file of the positions of the test
        images to measure on; default: all. Raises `InputError` where there is no test split, where the images of two
        splits have different shapes, or for positions that there are not.
        """
        test, train, validation = (parts.get(name) for name in ("test", "train", "validation"))
        if test is None:
            raise InputError(f"{where}: has no test split; epsbench measures on test images")
        for name, part in parts.items():
            if part is not None and part.images.shape[1:] != test.images.shape[1:]:
                shapes = [" × ".join(map(str, each.images.shape[1:])) for each in (test, part)]
                raise InputError(f"{where}: test images are {shapes[0]}, and those of {name!r} are {shapes[1]}")
        if train is not None:
            order = np.random.RandomState(SEED).permutation(len(train))
            held_out = 0 if validation is not None or len(train) < 2 else max(1, len(train) // ONE_IN)
            if held_out:
                validation = train.take(order[len(order) - held_out :])
            train = train.take(order[: len(order) - held_out])
        largest = max(int(part.labels.max()) for part in (train, validation, test) if part is not None and len(part))
        test = test.take(chosen_numbers(ids, len(test))) if ids else test
        return cls(test, train, validation, distinct(class_names), missing or {}, work, largest)

    @property
    def parts(self) -> tuple[Part | None, Part | None, Part]:
        """Train, validation, test."""
        return self.train, self.validation, self.test


@dataclass(frozen=True)
class DataSource(ABC):
    """Data of a user's own: a frozen value whose fields are what a suite may set."""

    version: ClassVar[int] = 1
    """Part of the id of every cell on the data; another value where the same files give other images."""

    base: Path
    """The folder that paths are relative to."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What messages and reports call it."""

    @abstractmethod
    def read(self) -> Splits:
        """Images and labels of every split there is. Raises `InputError` for what cannot be read."""

    @abstractmethod
    def describe(self) -> DataDescription:
        """Shape, classes, sizes and a digest of the content; without torch. Raises `InputError` as `read`."""

    def content(self, splits: Splits) -> str:
        """The digest of what was just read: by default what `describe` says now, which looks at the files again."""
        return self.describe().content


@dataclass(frozen=True)
class Facts:
    """What a suite may say of its data, where it is not to be computed."""

    classes: int = 0
    """The number of classes; 0: one more than the largest label."""
    mean: tuple[float, ...] = ()
    """The mean of each channel, for pixels in [0, 1]; empty: computed."""
    std: tuple[float, ...] = ()
    """The standard deviation of each channel; empty: computed."""


def description_of(splits: Splits, label: str, facts: Facts, content: str) -> DataDescription:
    """The description of what a source has read; ``content`` is a digest of it."""
    largest = splits.largest
    classes = facts.classes or len(splits.class_names) or largest + 1
    if largest >= classes:
        raise InputError(f"{label}: has a label {largest}, and there are {classes} classes; they are counted from 0")
    if classes < 2:
        raise InputError(f"{label}: all labels are 0; a classifier needs two classes: set classes")
    channels = splits.test.images.shape[1]
    computed = statistics((splits.train or splits.test).images) if not (facts.mean and facts.std) else ((), ())
    mean, std = facts.mean or computed[0], facts.std or computed[1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise InputError(f"{label}: {name} has {len(values)} values, and the images have {channels} channels")
    train, validation, test = (len(part) if part is not None else 0 for part in splits.parts)
    _, _, height, width = splits.test.images.shape
    described = DataDescription(
        label, (channels, height, width), classes, (train, validation, test), True, mean, std, SEED, content,
        splits.class_names, tuple(sorted((name, reason) for name, reason in splits.missing.items())),
    )  # fmt: skip
    # Two data sets of one name, such as test.npz in two folders, never share a table.
    return replace(described, name=f"{label} ({described.identity[:8]})")


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, each once: with its number where several classes have it, as two of ImageNet are a crane."""
    times = Counter(names)
    return tuple(f"{name} ({number})" if times[name] > 1 else name for number, name in enumerate(names))


def statistics(images: Images, most: int = 2_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1]; over at most so many images."""
    chosen = taken(taken(images, slice(None, None, max(1, len(images) // most))), slice(most))
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    sums, squares = np.zeros(images.shape[1]), np.zeros(images.shape[1])
    for some in chunks(chosen):
        pixels = some.astype(np.float64) / scale
        sums += pixels.sum((0, 2, 3))
        squares += (pixels**2).sum((0, 2, 3))
    count = len(chosen) * images.shape[2] * images.shape[3]
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    rounded = [tuple(round(float(value), _DIGITS) for value in values) for values in (mean, std)]
    return rounded[0], tuple(value or 1.0 for value in rounded[1])  # all pixels equal: nothing to divide by


def digest_of(splits: Splits, *more: object) -> str:
    """A digest of images, labels and class names, and of whatever else decides what a run sees."""
    digest = hashlib.sha256(repr((splits.class_names, *more)).encode())
    for part in splits.parts:
        if part is None:
            digest.update(b"absent")
            continue
        for array in (part.images, part.labels):
            digest.update(f"{array.dtype} {array.shape}".encode())
            for some in chunks(array):
                digest.update(np.ascontiguousarray(some).data)
    return digest.hexdigest()[:32]
