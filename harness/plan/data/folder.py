"""Images in folders, one folder a class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.ids import chosen_names
from epsbench.harness.plan.data.manifest import described
from epsbench.harness.plan.data.own import short_path
from epsbench.harness.plan.data.source import SEED, DataSource, Facts, Part, Splits, description_of

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
INTERPOLATIONS = {"bilinear": 2, "bicubic": 3}
"""By name, as PIL numbers them."""


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    """Relative to the split's folder, with ``/``."""
    label: int


@dataclass(frozen=True)
class Folder(DataSource):
    """A folder with one folder of images for each class, in alphabetical order; or with such folders for each split.

    Folders called ``train``, ``val`` and ``test`` are splits; without ``test``, ``val`` is measured on. ``resize``
    scales the shorter side to so many pixels and ``crop`` cuts a square out of the middle, both as torchvision does;
    0 leaves it out. ``channels`` is 3 or, for grey images, 1. ``ids`` is a text file that names the test images, one a
    line. The test images are put into a random order that is always the same.
    """

    path: str
    resize: int = 0
    crop: int = 0
    interpolation: str = "bilinear"
    channels: int = 3
    ids: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation must be one of {known}, not {self.interpolation!r}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        if min(self.resize, self.crop) < 0:
            raise ValueError("resize and crop must not be negative; 0 leaves them out")

    @property
    def label(self) -> str:
        return short_path(self.path, self.base)

    @property
    def _root(self) -> Path:
        return (self.base / self.path).resolve()

    def describe(self) -> DataDescription:
        listed = self._listed
        files = [file.path for part in listed.values() for file in part]
        files += [self.base / self.ids] if self.ids else []

        def read() -> DataDescription:
            digest = hashlib.sha256(repr((self.version, self._settings)).encode())
            splits = self._read(digest)
            return description_of(
                splits, self.label, Facts(0, tuple(self.mean), tuple(self.std)), digest.hexdigest()[:32]
            )

        key = f"folder {(self.version, self._settings, self.mean, self.std, self.label)}"
        return described(key, files, f"data {self.label!r}", read)

    @property
    def _settings(self) -> tuple[object, ...]:
        return self._classes, self.resize, self.crop, self.interpolation, self.channels

    def read(self) -> Splits:
        return self._read(None)

    def _read(self, digest: Any) -> Splits:
        """Read all images; ``digest``, a hash of `hashlib` or None, is updated with the files."""
        parts: dict[str, Part | None] = {}
        for split, files in self._listed.items():
            images = np.empty((len(files), *self._shape), dtype=np.uint8)
            for position, file in enumerate(files):
                content = _content(file.path)
                if digest is not None:
                    digest.update(f"{split} {file.name} {file.label} ".encode() + hashlib.sha256(content).digest())
                images[position] = self._pixels(content, file.path)
            parts[split] = Part(images, np.asarray([file.label for file in files], dtype=np.int64))
        return Splits.of(parts, f"data {self.label!r}", self._classes)

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return self._scanned[0]

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
        """The class names, and the files of each split by class and name."""
        folders = self._splits()
        classes = {split: _subfolders(folder) for split, folder in folders.items()}
        names = tuple(folder.name for folder in classes["test"])
        for split, of_split in classes.items():
            if (others := tuple(folder.name for folder in of_split)) != names:
                odd = sorted(set(others) ^ set(names))[:3]
                raise InputError(
                    f"{folders[split]}: its classes are not those of {folders['test']} (such as "
                    f"{', '.join(map(repr, odd))}); give every split the same class folders"
                )
        listed = {split: list(_files(folder, classes[split])) for split, folder in folders.items()}
        for split, files in listed.items():
            if not files:
                raise InputError(f"{folders[split]}: holds no image ({', '.join(sorted(ENDINGS))})")
        return names, listed

    def _splits(self) -> dict[str, Path]:
        """The folder of each split there is; of a folder without splits all is for testing."""
        root = self._root
        if not root.is_dir():
            raise InputError(f"{root}: there is no such folder; check the path")
        there = {split: root / name for split, names in SPLITS.items() for name in names if (root / name).is_dir()}
        if "test" not in there and "validation" in there:
            there["test"] = there.pop("validation")
        if not there or set(there) == {"train"}:
            there = {"test": root}
        if not _subfolders(there["test"]):
            loose = any(path.suffix.lower() in ENDINGS for path in there["test"].iterdir())
            what = "holds images and no class folders" if loose else "is empty"
            raise InputError(f"{there['test']}: {what}; one folder for each class is needed, with its images inside")
        return there

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        first = self._listed["test"][0].path
        shape: tuple[int, int, int] = self._decoded(_content(first), first).shape
        return shape

    def _pixels(self, content: bytes, path: Path) -> np.ndarray:
        pixels = self._decoded(content, path)
        if pixels.shape != self._shape:
            (_, height, width), (_, first_height, first_width) = pixels.shape, self._shape
            raise InputError(
                f"{path}: has {height}×{width} pixels, and the first image {first_height}×{first_width}; set "
                "resize and crop, such as resize = 256 and crop = 224"
            )
        return pixels

    def _decoded(self, content: bytes, path: Path) -> np.ndarray:
        """The image as uint8 (C, H, W), resized and cropped. Raises `InputError`, naming the file, where it is none."""
        from PIL import Image as Images

        try:
            with Images.open(io.BytesIO(content)) as file:
                image = file.convert("L" if self.channels == 1 else "RGB")
                if self.resize:
                    image = image.resize(_scaled(image.size, self.resize), INTERPOLATIONS[self.interpolation])
                if self.crop:
                    image = _cropped(image, self.crop, path)
                pixels = np.asarray(image, dtype=np.uint8)
        except (OSError, ValueError, SyntaxError, EOFError, Images.DecompressionBombError) as error:
            raise InputError(f"{path}: is no image, or damaged ({error}); replace it, or take it out") from error
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _scaled(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height with the shorter side at so many pixels, as torchvision rounds them."""
    width, height = size
    return (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)


def _cropped(image: Image, crop: int, path: Path) -> Image:
    width, height = image.size
    if min(width, height) < crop:
        raise InputError(f"{path}: has {height}×{width} pixels, too few for crop = {crop}; set resize too")
    left, top = round((width - crop) / 2.0), round((height - crop) / 2.0)
    return image.crop((left, top, left + crop, top + crop))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, classes: Sequence[Path]) -> list[_File]:
    return [
        _File(path, path.relative_to(folder).as_posix(), label)
        for label, of_class in enumerate(classes)
        for path in sorted(of_class.rglob("*"))
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()
    ]
