"""Data that a user's code gives: a torch ``Dataset``, arrays, or a function that returns either for a split."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epsbench.harness.errors import FAILURES, InputError, summary
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.checks import as_array, checked_images, checked_labels
from epsbench.harness.plan.data.decoded import Decoder
from epsbench.harness.plan.data.own import short_address
from epsbench.harness.plan.data.pixels import chunks
from epsbench.harness.plan.data.source import DataSource, Facts, Part, Splits, description_of, digest_of
from epsbench.harness.plan.data.stored import store


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
        content = digest_of(splits, self.version)
        store(content, splits)
        return description_of(splits, self.label, self.facts, content)

    def read(self) -> Splits:
        where = f"data {self.label!r}"
        given, missing = self._given()
        names: tuple[str, ...] = ()
        parts: dict[str, Part | None] = {}
        places = {split: f"{where}, split {split!r}" for split in given}
        decoder = Decoder(where, sum(size_of(value, places[split]) for split, value in given.items()))
        for split, value in given.items():
            names = names or class_names_of(value)
            parts[split] = part_of(value, places[split], self.facts.classes, decoder, split)
        return Splits.of(parts, where, names, missing, decoder.work)

    def content(self, splits: Splits) -> str:
        return digest_of(splits, self.version)

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
        except FAILURES as error:
            shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise InputError(f"data {self.label!r}: {self.label}({shown}) raises {summary(error)}") from error


def part_of(value: Any, where: str, classes: int, decoder: Decoder, name: str) -> Part:
    """The examples of arrays ``(x, y)`` or of a dataset. Raises `InputError`, naming ``where``, for anything else.

    ``name`` is that of the file, where the decoder makes one.
    """
    if isinstance(value, Given):
        return value.part
    if (arrays := _arrays(value, where)) is not None:
        images, labels = arrays
        whole = decoder.work is None  # in memory it is already
        pixels = checked_images(images, where) if whole else decoder.collect(name, chunks(images), len(images), where)
        return Part(pixels, checked_labels(labels, len(pixels), where, classes))
    known: list[int] = []
    pixels = decoder.collect(name, _examples(value, where, known), len(value), where)
    return Part(pixels, checked_labels(np.asarray(known), len(pixels), where, classes))


def size_of(value: Any, where: str) -> int:
    """The bytes that the images of arrays or of a dataset take; 0 where they are there already."""
    if isinstance(value, Given):
        return 0
    if (arrays := _arrays(value, where)) is not None:
        images = arrays[0]
        return images.size * (1 if images.dtype == np.uint8 else 4)
    if not len(value):
        raise InputError(f"{where}: the dataset is empty")
    image, _ = _example(value, 0, f"{where}, example 0")
    return len(value) * image.size * (1 if image.dtype == np.uint8 else 4)


def _arrays(value: Any, where: str) -> tuple[np.ndarray, Any] | None:
    """Images and labels of a pair of arrays; None for a dataset. Raises `InputError` for anything else."""
    examples = isinstance(value, list) and value and isinstance(value[0], tuple | list)  # a list of (image, label)
    if isinstance(value, tuple | list) and len(value) == 2 and not examples:
        images = as_array(value[0], where)
        if not len(images):
            raise InputError(f"{where}: holds no image")
        return images, value[1]
    if hasattr(value, "__getitem__") and hasattr(value, "__len__"):
        try:
            len(value)
        # A dataset is the user's code: it may raise anything.
        except Exception as error:
            raise InputError(f"{where}: its __len__ raises {summary(error)}; return the number of examples") from error
        return None
    raise InputError(
        f"{where}: is a {type(value).__name__}; give (x, y) with images and labels, or a dataset with __len__ and "
        "__getitem__ that returns (image, label)"
    )


def _examples(dataset: Any, where: str, labels: list[int]) -> Iterator[np.ndarray]:
    """The images (1, …) of a dataset, one after the other; their labels are appended to ``labels``."""
    first: np.ndarray | None = None
    for position in range(len(dataset)):
        place = f"{where}, example {position}"
        image, label = _example(dataset, position, place)
        first = image if first is None else first
        if image.shape != first.shape:
            shapes = [" × ".join(map(str, each.shape)) for each in (first, image)]
            raise InputError(f"{place}: is {shapes[1]}, and the first image {shapes[0]}; resize them alike")
        if image.dtype != first.dtype:
            raise InputError(f"{place}: is {image.dtype}, and the first image {first.dtype}; give all the same type")
        labels.append(label)
        yield image[None]


def _example(dataset: Any, position: int, place: str) -> tuple[np.ndarray, int]:
    try:
        example = dataset[position]
    # A dataset is the user's code, and reads files: it may raise anything, or even try to exit.
    except FAILURES as error:
        raise InputError(f"{place}: raises {summary(error)}; correct it, or leave it out") from error
    if not isinstance(example, tuple | list) or len(example) < 2:
        raise InputError(f"{place}: is a {type(example).__name__}; a dataset must return (image, label)")
    return _image(example[0], place), as_label(example[1], place)


def class_names_of(value: Any) -> tuple[str, ...]:
    """What a dataset calls its classes, as torchvision's do in ``classes``; empty where that is no list of names."""
    names = getattr(value, "classes", None)
    names = names.tolist() if isinstance(names, np.ndarray) else names
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


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
