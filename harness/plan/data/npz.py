"""Arrays in a NumPy file: ``.npz`` with images and labels, or ``.npy`` with the labels beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.files import DAMAGED_ARCHIVE
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.checks import LAYOUTS, checked_images, checked_labels
from epsbench.harness.plan.data.ids import chosen_numbers
from epsbench.harness.plan.data.manifest import described
from epsbench.harness.plan.data.own import short_path
from epsbench.harness.plan.data.source import DataSource, Facts, Part, Splits, description_of, digest_of

IMAGES, LABELS = ("images", "x", "data", "X"), ("labels", "y", "targets", "Y", "label")
_NAMES = ("class_names", "classes", "label_names")


def read_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """What a NumPy file holds: the array of a ``.npy``, or the arrays of a ``.npz`` by name.

    Raises `InputError` where it is not there, is damaged, or holds pickled objects.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; check the path") from error
    except DAMAGED_ARCHIVE as error:
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise InputError(
                f"{path}: holds pickled objects, which could run code when they are loaded; save plain arrays: "
                "numpy.savez(path, images=images, labels=labels)"
            ) from error
        raise InputError(f"{path}: is no NumPy file, or damaged ({error}); save it with numpy.savez") from error


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
            return description_of(splits, self.label, self._facts, digest_of(splits, self.version))

        settings = (self.version, self.images, self.labels, self.train, self.ids, self.layout, self._facts, self.label)
        return described(f"npz {settings}", [path.absolute() for path in self.files()], f"data {self.label!r}", read)

    def read(self) -> Splits:
        arrays = self._arrays(self.path)
        names = next((arrays[name] for name in _NAMES if name in arrays and arrays[name].dtype.kind in "US"), None)
        parts: dict[str, Part | None] = {"test": self._part(arrays, "test", self.path)}
        for split, other in (("train", self.train), ("validation", "")):
            if other:
                parts[split] = self._part(self._arrays(other), "test", other)
            elif _key(arrays, "", IMAGES, split):
                parts[split] = self._part(arrays, split, self.path)
        test = parts["test"]
        if self.ids and test is not None:
            parts["test"] = test.take(chosen_numbers(self.base / self.ids, len(test)))
        return Splits.of(parts, f"data {self.label!r}", tuple(map(str, names)) if names is not None else ())

    def _arrays(self, name: str) -> Mapping[str, np.ndarray]:
        path = self.base / name
        loaded = read_arrays(path)
        if not isinstance(loaded, np.ndarray):
            return loaded
        if not self.labels:
            raise InputError(f'{path}: holds one array; name the file of its labels: labels = "labels.npy"')
        return {"images": loaded, "labels": read_arrays(self.base / self.labels)}  # type: ignore[dict-item]

    def _part(self, arrays: Mapping[str, np.ndarray], split: str, name: str) -> Part:
        path = self.base / name
        separate = self.path.endswith(".npy")
        keys = []
        for kind, wanted, usual in (
            ("images", self.images, IMAGES),
            ("labels", "" if separate else self.labels, LABELS),
        ):
            key = _key(arrays, wanted if split == "test" else "", usual, split)
            if not key:
                hint = did_you_mean(wanted or usual[0], arrays) if arrays else "; it is empty"
                raise InputError(f'{path}: has no array of {kind}{hint}; name it: {kind} = "…"')
            keys.append(key)
        images = checked_images(arrays[keys[0]], f"{path} [{keys[0]}]", self.layout)
        return Part(images, checked_labels(arrays[keys[1]], len(images), f"{path} [{keys[1]}]", self.classes))


def _key(arrays: Mapping[str, np.ndarray], wanted: str, usual: tuple[str, ...], split: str) -> str:
    """The name of an array in the file; empty where there is none."""
    if wanted:
        return wanted if wanted in arrays else ""
    names = [f"{name}_{part}" if after else f"{part}_{name}" for part in _called(split) for name in usual
             for after in (True, False)]  # fmt: skip
    return next((name for name in (*names, *(usual if split == "test" else ())) if name in arrays), "")


def _called(split: str) -> tuple[str, ...]:
    return ("validation", "valid", "val") if split == "validation" else (split,)
