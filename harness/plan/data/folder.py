"""Images in folders, one folder a class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from epsbench.harness.errors import InputError
from epsbench.harness.files import cannot_read
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.class_list import ClassList, class_list
from epsbench.harness.plan.data.decoded import Decoder
from epsbench.harness.plan.data.decoding import Shaping, by_threads, of_one_size
from epsbench.harness.plan.data.ids import chosen_names
from epsbench.harness.plan.data.manifest import described
from epsbench.harness.plan.data.own import short_path
from epsbench.harness.plan.data.source import SEED, DataSource, Facts, Part, Splits, description_of
from epsbench.harness.plan.data.stored import store

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


@dataclass(frozen=True, slots=True)
class _File:
    root: str
    name: str
    """Relative to the split's folder, with ``/``."""
    label: int

    @property
    def path(self) -> Path:
        return Path(self.root, self.name)


@dataclass(frozen=True)
class Folder(DataSource):
    """A folder with one folder of images for each class, in alphabetical order; or with such folders for each split.

    Folders called ``train``, ``val`` and ``test`` are splits; without ``test``, ``val`` is measured on. ``resize``
    scales the shorter side to so many pixels and ``crop`` cuts a square out of the middle, both as torchvision does;
    0 leaves it out. ``channels`` is 3 or, for grey images, 1. ``ids`` is a text file that names the test images, one a
    line. ``classes`` are those of a model that knows more than the folder has: `epsbench.harness.plan.data.class_list`.
    The test images are put into a random order that is always the same.
    """

    path: str
    resize: int = 0
    crop: int = 0
    interpolation: str = "bilinear"
    channels: int = 3
    ids: str = ""
    classes: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self._shaping  # noqa: B018 - raises for values that are out of range

    @property
    def _shaping(self) -> Shaping:
        return Shaping(self.resize, self.crop, self.interpolation, self.channels)

    @property
    def label(self) -> str:
        return short_path(self.path, self.base)

    @property
    def _root(self) -> Path:
        return (self.base / self.path).resolve()

    def describe(self) -> DataDescription:
        listed = self._listed
        files = [file.path for part in listed.values() for file in part]
        files += [path for name in (self.ids, self.classes) if name and (path := self.base / name).is_file()]

        def read() -> DataDescription:
            digest = hashlib.sha256(repr((self.version, self._settings)).encode())
            splits = self._read(digest)
            content = digest.hexdigest()[:32]
            store(content, splits)
            return description_of(splits, self.label, Facts(0, tuple(self.mean), tuple(self.std)), content)

        key = (self.version, str(self._root), self._settings, self.ids, self.classes, self.mean, self.std, self.label)
        return described(f"folder {key}", files, f"data {self.label!r}", read)

    @property
    def _settings(self) -> tuple[object, ...]:
        return self._classes, self.resize, self.crop, self.interpolation, self.channels

    def read(self) -> Splits:
        return self._read(None)

    def content(self, splits: Splits) -> str:
        for name in ("_scanned", "_listed", "_classes", "_list", "_shape"):  # the folder may hold other files by now
            self.__dict__.pop(name, None)
        return super().content(splits)

    def _read(self, digest: Any) -> Splits:
        """Read all images; ``digest``, a hash of `hashlib` or None, is updated with the files."""
        where = f"data {self.label!r}"
        decoder = Decoder(where, sum(map(len, self._listed.values())) * math.prod(self._shape))
        parts: dict[str, Part | None] = {}
        for split, files in self._listed.items():
            pixels = self._decoded(split, files, digest)
            images = decoder.collect(split, pixels, len(files), where)
            parts[split] = Part(images, np.asarray([file.label for file in files], dtype=np.int64))
        return Splits.of(parts, where, self._classes, work=decoder.work)

    def _decoded(self, split: str, files: Sequence[_File], digest: Any) -> Iterator[np.ndarray]:
        """The images (1, C, H, W) of files, in their order."""

        def read(file: _File) -> tuple[np.ndarray, bytes]:
            content = _content(file.path)
            pixels = of_one_size(self._shaping.pixels(content, file.path), self._shape, file.path)
            return pixels[None], b"" if digest is None else hashlib.sha256(content).digest()

        for file, (pixels, known) in zip(files, by_threads(read, files), strict=True):
            if digest is not None:
                digest.update(f"{split} {file.name} {file.label} ".encode("utf-8", "surrogateescape") + known)
            yield pixels

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return self._list.names if self._list else self._scanned[0]

    @cached_property
    def _list(self) -> ClassList | None:
        return class_list(self.classes, self.base) if self.classes else None

    @cached_property
    def _listed(self) -> dict[str, list[_File]]:
        """The files of each split, in the order in which they are read."""
        listed = dict(self._scanned[1])
        test = listed["test"]
        if self.ids:
            listed["test"] = [test[at] for at in chosen_names(self.base / self.ids, [file.name for file in test])]
        else:
            listed["test"] = [test[at] for at in np.random.RandomState(SEED).permutation(len(test))]
        return listed

    @cached_property
    def _scanned(self) -> tuple[tuple[str, ...], dict[str, list[_File]]]:
        """The names of the class folders, and the files of each split by class and name."""
        folders = self._splits()
        classes = {split: _subfolders(folder) for split, folder in folders.items()}
        names = tuple(folder.name for folder in classes["test"])
        for split, of_split in classes.items():
            if not self._list and (others := tuple(folder.name for folder in of_split)) != names:
                odd = sorted(set(others) ^ set(names))[:3]
                raise InputError(
                    f"{folders[split]}: its classes are not those of {folders['test']} (such as "
                    f"{', '.join(map(repr, odd))}); give every split the same class folders, or set classes"
                )
        listed = {split: self._files(folder, classes[split]) for split, folder in folders.items()}
        for split, files in listed.items():
            if not files:
                raise InputError(f"{folders[split]}: holds no image ({', '.join(sorted(ENDINGS))})")
        used = {file.label for files in listed.values() for file in files}
        if not self._list and (empty := [name for label, name in enumerate(names) if label not in used]):
            raise InputError(
                f"{folders['test'] / empty[0]}: holds no image ({', '.join(sorted(ENDINGS))}); put images of the class "
                "into it, or delete it"
            )
        return names, listed

    def _files(self, folder: Path, classes: Sequence[Path]) -> list[_File]:
        """The files of a split, class folder by class folder."""
        labels = [self._list.label(of_class) if self._list else at for at, of_class in enumerate(classes)]
        return [file for at, label in enumerate(labels) for file in _files(folder, classes[at], label)]

    def _splits(self) -> dict[str, Path]:
        """The folder of each split there is; of a folder without splits all is for testing."""
        root = self._root
        if not root.is_dir():
            if root.is_file():
                raise InputError(f"{root}: is a file, not a folder of images; give the folder that it is in")
            raise InputError(f"{root}: there is no such folder; check the path")
        there = {split: root / name for split, names in SPLITS.items() for name in names if (root / name).is_dir()}
        if "test" not in there and "validation" in there:
            there["test"] = there.pop("validation")
        if set(there) == {"train"} and _subfolders(root) == [there["train"]] and _subfolders(there["train"]):
            raise InputError(f"{root}: has train, and neither test nor val; give {there['train']} to measure on it")
        if not there or set(there) == {"train"}:  # a class may be called so
            there = {"test": root}
        if not _subfolders(there["test"]):
            loose = any(path.suffix.lower() in ENDINGS for path in there["test"].iterdir())
            what = "holds images and no class folders" if loose else "is empty"
            raise InputError(f"{there['test']}: {what}; one folder for each class is needed, with its images inside")
        return there

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        first = self._listed["test"][0].path
        shape: tuple[int, int, int] = self._shaping.pixels(_content(first), first).shape
        return shape


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, of_class: Path, label: int) -> list[_File]:
    images = [path for path in _below(of_class) if path.suffix.lower() in ENDINGS and not path.name.startswith(".")]
    files = []
    for path in sorted(images):
        if not path.exists():
            raise InputError(f"{path}: is a link to a file that is not there; restore the file, or delete the link")
        files.append(_File(str(folder), path.relative_to(folder).as_posix(), label))
    return files


def _below(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Links to folders are followed, but none into a folder that is entered already."""
    entered = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        entered.add(os.path.realpath(root))
        folders[:] = [name for name in folders if os.path.realpath(Path(root, name)) not in entered]
        yield from (Path(root, name) for name in names)
