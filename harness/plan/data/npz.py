"""Arrays in a NumPy file: ``.npz`` with images and labels, or ``.npy`` with the labels beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.checks import LAYOUTS, checked_labels
from epsbench.harness.plan.data.decoded import Decoder
from epsbench.harness.plan.data.manifest import described
from epsbench.harness.plan.data.members import Member, members_of
from epsbench.harness.plan.data.own import short_path
from epsbench.harness.plan.data.source import DataSource, Facts, Part, Splits, description_of, digest_of
from epsbench.harness.plan.data.stored import store

IMAGES, LABELS = ("images", "x", "data", "X"), ("labels", "y", "targets", "Y", "label")
_NAMES = ("class_names", "classes", "label_names")


@dataclass(frozen=True)
class Npz(DataSource):
    """Images and labels in a NumPy file: the test split, and others where the file has them.

    The arrays are called ``images`` and ``labels``, or ``x`` and ``y``, or as ``images`` and ``labels`` say. Arrays
    ``x_train``, ``y_train`` or ``train_images``, ``train_labels`` are training examples; ``train`` names another file
    of them. Images are uint8 (0 to 255) or floats in [0, 1], with the channels first or last. ``ids`` is a text file of
    the positions to measure on, one a line. Of a ``.npy`` file of images, ``labels`` is the file of the labels.
    """

    path: str
    images: str = ""
    labels: str = ""
    train: str = ""
    ids: str = ""
    layout: str = "auto"
    classes: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {self.layout!r}")

    @property
    def label(self) -> str:
        return short_path(self.path, self.base)

    @property
    def _facts(self) -> Facts:
        return Facts(self.classes, tuple(self.mean), tuple(self.std))

    def files(self) -> list[Path]:
        """Every file that it reads."""
        beside = [self.labels] if self.path.endswith(".npy") and self.labels else []
        return [self.base / name for name in (self.path, *beside, self.train, self.ids) if name]

    def describe(self) -> DataDescription:
        def read() -> DataDescription:
            splits = self.read()
            content = digest_of(splits, self.version)
            store(content, splits)
            return description_of(splits, self.label, self._facts, content)

        files = [path.absolute() for path in self.files()]
        settings = (self.version, self.images, self.labels, self.train, self.ids, self.layout, self._facts, self.label)
        return described(f"npz {settings} {[str(path) for path in files]}", files, f"data {self.label!r}", read)

    def read(self) -> Splits:
        where = f"data {self.label!r}"
        arrays = self._arrays(self.path)
        names = next((arrays[name] for name in _NAMES if name in arrays and arrays[name].dtype.kind in "US"), None)
        wanted = {"test": self._pair(arrays, "test", self.path)}
        for split, other in (("train", self.train), ("validation", "")):
            if other:
                wanted[split] = self._pair(self._arrays(other), "test", other)
            elif _key(arrays, "", IMAGES, split):
                wanted[split] = self._pair(arrays, split, self.path)
        decoder = Decoder(where, sum(_size(images) for images, _ in wanted.values()))
        parts: dict[str, Part | None] = {name: self._part(decoder, name, *pair) for name, pair in wanted.items()}
        labels = tuple(map(str, names.read())) if names is not None else ()
        return Splits.of(parts, where, labels, work=decoder.work, ids=self.base / self.ids if self.ids else None)

    def _arrays(self, name: str) -> Mapping[str, Member]:
        path = self.base / name
        arrays = members_of(path)
        if "" not in arrays:
            return arrays
        if not self.labels:
            raise InputError(f'{path}: holds one array; name the file of its labels: labels = "labels.npy"')
        labels = members_of(self.base / self.labels)
        if "" not in labels:
            raise InputError(f"{self.base / self.labels}: holds several arrays; give the labels as one: numpy.save")
        return {"images": arrays[""], "labels": labels[""]}

    def _pair(self, arrays: Mapping[str, Member], split: str, name: str) -> tuple[Member, Member]:
        """The images and the labels of a split."""
        path, separate = self.base / name, self.path.endswith(".npy")
        pair = []
        for kind, wanted, usual in (
            ("images", "" if separate else self.images, IMAGES),
            ("labels", "" if separate else self.labels, LABELS),
        ):
            key = _key(arrays, wanted if split == "test" else "", usual, split)
            if not key:
                hint = did_you_mean(wanted or usual[0], arrays) if arrays else "; it is empty"
                raise InputError(f'{path}: has no array of {kind}{hint}; name it: {kind} = "…"')
            arrays[key].require_plain()
            pair.append(arrays[key])
        return pair[0], pair[1]

    def _part(self, decoder: Decoder, split: str, images: Member, labels: Member) -> Part:
        # Labels first: they are small, and what is wrong with them is known at once.
        known = checked_labels(labels.read(), len(images), _where(labels), self.classes)
        pixels = decoder.collect(split, images.chunks(), len(images), _where(images), self.layout)
        return Part(pixels, known)


def _where(array: Member) -> str:
    return f"{array.path} [{array.name}]" if array.name else str(array.path)


def _size(images: Member) -> int:
    """The bytes that images take once they are checked: those of floats are float32."""
    return math.prod(images.shape) * (1 if images.dtype == np.uint8 else 4)


def _key(arrays: Mapping[str, Member], wanted: str, usual: tuple[str, ...], split: str) -> str:
    """The name of an array in the file; empty where there is none."""
    if wanted:
        return wanted if wanted in arrays else ""
    names = [f"{name}_{part}" if after else f"{part}_{name}" for part in _called(split) for name in usual
             for after in (True, False)]  # fmt: skip
    return next((name for name in (*names, *(usual if split == "test" else ())) if name in arrays), "")


def _called(split: str) -> tuple[str, ...]:
    return ("validation", "valid", "val") if split == "validation" else (split,)
