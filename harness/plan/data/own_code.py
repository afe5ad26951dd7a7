"""Data that a user's code gives: a torch ``Dataset``, arrays, or a function that returns either for a split."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from epsbench.harness.errors import InputError, summary
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.checks import as_array, checked_images, checked_labels
from epsbench.harness.plan.data.own import short_address
from epsbench.harness.plan.data.source import DataSource, Facts, Part, Splits, description_of, digest_of


@dataclass(frozen=True)
class Given:
    """Data of this process, checked."""

    part: Part
    classes: tuple[str, ...] = ()
    """What the classes are called."""


NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class OwnCode(DataSource):
    """What an object gives: arrays ``(x, y)``, a dataset, or a table of these by split.

    A function or class is called with the split: as ``split="test"`` where it has a parameter ``split``, as
    ``train=False`` where it has ``train``, and otherwise once for the test split. A split for which it raises or
    returns None is missing.
    """

    address: str
    factory: Callable[..., Any] = field(compare=False)
    params: tuple[tuple[str, Any], ...] = ()
    facts: Facts = field(default_factory=Facts)

    @property
    def label(self) -> str:
        return short_address(self.address)

    def describe(self) -> DataDescription:
        splits = self.read()
        return description_of(splits, self.label, self.facts, digest_of(splits, self.version))

    def read(self) -> Splits:
        return self._splits

    @cached_property
    def _splits(self) -> Splits:
        where = f"data {self.label!r}"
        given, missing = self._given()
        names: tuple[str, ...] = ()
        parts: dict[str, Part | None] = {}
        for split, value in given.items():
            names = names or tuple(map(str, getattr(value, "classes", ()) or ()))
            parts[split] = part_of(value, f"{where}, split {split!r}", self.facts.classes)
        return Splits.of(parts, where, names, missing)

    def _given(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What the object gives for each split, and why it gives nothing for others."""
        wanted = _parameters(self.factory)
        if "split" in wanted:
            calls: dict[str, dict[str, Any]] = {name: {"split": name} for name in NAMES}
        elif "train" in wanted:
            calls = {"train": {"train": True}, "test": {"train": False}}
        else:
            value = self._call({})
            table = isinstance(value, Mapping)
            return ({name: value[name] for name in NAMES if name in value} if table else {"test": value}), {}
        given, missing = {}, {}
        for name, call in calls.items():
            try:
                value = self._call(call)
            except InputError as error:
                if name == "test":
                    raise
                missing[name] = str(error)
                continue
            if value is not None:
                given[name] = value
        return given, missing

    def _call(self, arguments: dict[str, Any]) -> Any:
        try:
            return self.factory(**dict(self.params), **arguments)
        # The object is the user's: it may raise anything, or even try to exit.
        except (Exception, SystemExit) as error:
            shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise InputError(f"data {self.label!r}: {self.label}({shown}) raises {summary(error)}") from error


def part_of(value: Any, where: str, classes: int = 0) -> Part:
    """The examples of arrays ``(x, y)`` or of a dataset. Raises `InputError`, naming ``where``, for anything else."""
    if isinstance(value, Given):
        return value.part
    examples = isinstance(value, list) and value and isinstance(value[0], tuple | list)  # a list of (image, label)
    if isinstance(value, tuple | list) and len(value) == 2 and not examples:
        images, labels = value
        images = checked_images(images, where)
        return Part(images, checked_labels(labels, len(images), where, classes))
    if hasattr(value, "__getitem__") and hasattr(value, "__len__"):
        return _of_dataset(value, where, classes)
    raise InputError(
        f"{where}: is a {type(value).__name__}; give (x, y) with images and labels, or a dataset with __len__ and "
        "__getitem__ that returns (image, label)"
    )


def _of_dataset(dataset: Any, where: str, classes: int) -> Part:
    """Every example of a dataset, one after the other."""
    images: list[np.ndarray] = []
    labels: list[Any] = []
    for position in range(len(dataset)):
        place = f"{where}, example {position}"
        try:
            example = dataset[position]
        # A dataset is the user's code, and reads files: it may raise anything.
        except Exception as error:
            raise InputError(f"{place}: raises {summary(error)}; correct it, or leave it out") from error
        if not isinstance(example, tuple | list) or len(example) < 2:
            raise InputError(f"{place}: is a {type(example).__name__}; a dataset must return (image, label)")
        images.append(_image(example[0], place))
        labels.append(as_label(example[1], place))
        if images[-1].shape != images[0].shape:
            shapes = [" × ".join(map(str, image.shape)) for image in (images[0], images[-1])]
            raise InputError(f"{place}: is {shapes[1]}, and the first image {shapes[0]}; resize them alike")
    if not images:
        raise InputError(f"{where}: the dataset is empty")
    stacked = checked_images(np.stack(images), where)
    return Part(stacked, checked_labels(np.asarray(labels), len(stacked), where, classes))


def _image(image: Any, place: str) -> np.ndarray:
    """One image as (C, H, W): of a tensor, an array or a PIL image."""
    if hasattr(image, "getbands"):  # PIL
        image = np.asarray(image.convert("RGB") if image.mode not in ("L", "RGB") else image)
        return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    array = as_array(image, place)
    return array[None] if array.ndim == 2 else array


def as_label(label: Any, place: str) -> int:
    """A label as an integer. Raises `InputError` for one-hot vectors and for floats."""
    array = np.asarray(label.detach().cpu() if hasattr(label, "detach") else label)
    if array.ndim and array.size > 1:
        raise InputError(f"{place}: its label has {array.size} values, as if one-hot; return the class: label.argmax()")
    if array.dtype.kind not in "iu":
        raise InputError(f"{place}: its label is {label!r}; return an integer from 0")
    return int(array.reshape(-1)[0])


def _parameters(factory: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(factory).parameters)
    except (ValueError, TypeError):  # a callable of C, which takes no split
        return set()
