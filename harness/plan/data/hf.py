"""Data sets of Hugging Face's library ``datasets``: a folder of its own or of parquet or image files, or a hub name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from epsbench.harness.errors import InputError, did_you_mean, summary
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.checks import checked_labels
from epsbench.harness.plan.data.decoded import Decoder
from epsbench.harness.plan.data.decoding import Shaping, by_threads, of_one_size
from epsbench.harness.plan.data.manifest import described
from epsbench.harness.plan.data.own import short_path
from epsbench.harness.plan.data.source import DataSource, Facts, Part, Splits, description_of, digest_of
from epsbench.harness.plan.data.stored import store

IMAGES, LABELS = ("image", "img", "images", "x", "pixel_values"), ("label", "labels", "y", "target")
TEST, VALIDATION = ("test",), ("validation", "valid", "val")


@dataclass(frozen=True)
class HuggingFace(DataSource):
    """A data set of the library ``datasets``, which ``epsbench[hf]`` installs.

    ``path`` is a folder that ``save_to_disk`` wrote, a folder of parquet or image files, a parquet file, or a name on
    the hub, with its ``config`` and ``revision``. ``images`` and ``labels`` name the columns; by default they are the
    only column of images and the only one of classes. ``test`` and ``train`` name splits. ``ids`` is a text file of the
    positions to measure on, one a line. Images are resized and cropped as those of a folder.
    """

    path: str
    config: str = ""
    revision: str = ""
    images: str = ""
    labels: str = ""
    test: str = ""
    train: str = ""
    ids: str = ""
    resize: int = 0
    crop: int = 0
    interpolation: str = "bilinear"
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        self._shaping  # noqa: B018 - raises for values that are out of range

    @property
    def label(self) -> str:
        return short_path(self.path, self.base) if self._local else self.path

    @property
    def _shaping(self) -> Shaping:
        return Shaping(self.resize, self.crop, self.interpolation, self.channels)

    @property
    def _where(self) -> str:
        return f"data {self.label!r}"

    @property
    def _local(self) -> Path | None:
        """The folder or file; None for a name on the hub."""
        place = (self.base / self.path).resolve()
        return place if place.exists() else None

    def describe(self) -> DataDescription:
        def read() -> DataDescription:
            splits = self.read()
            content = digest_of(splits, self.version)
            store(content, splits)
            return description_of(splits, self.label, Facts(0, tuple(self.mean), tuple(self.std)), content)

        fields = {key: value for key, value in vars(self).items() if key in self.__dataclass_fields__}
        return described(f"hf {self.version} {fields} {self._local}", self._files(), self._where, read)

    def content(self, splits: Splits) -> str:
        self.__dict__.pop("_loaded", None)
        return super().content(splits)

    def _files(self) -> list[Path]:
        """Every file that it reads."""
        place = self._local
        if place is None:
            caches = [each for dataset in self._loaded.values() for each in dataset.cache_files]
            files = sorted(Path(each["filename"]) for each in caches)
        else:
            files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        return files + ([self.base / self.ids] if self.ids else [])

    def read(self) -> Splits:
        chosen = self._chosen
        columns = {split: self._columns(dataset) for split, dataset in chosen.items()}
        names = _class_names(chosen["test"], columns["test"][1])
        for split, dataset in chosen.items():
            if (others := _class_names(dataset, columns[split][1])) != names:
                odd = ", ".join(map(repr, sorted(set(others) ^ set(names))[:3])) or "in another order"
                raise InputError(f"{self._where}: the classes of {split!r} are not those of the test split ({odd})")
        first = self._pixels(self._plain(chosen["test"], columns["test"][0])[0], 0, columns["test"][0], None)
        decoder = Decoder(self._where, sum(map(len, chosen.values())) * first.size)
        parts: dict[str, Part | None] = {}
        for split, dataset in chosen.items():
            images, labels = columns[split]
            known = self._labels(dataset, labels, split)
            pixels = self._decoded(self._plain(dataset, images), images, first.shape)
            parts[split] = Part(decoder.collect(split, pixels, len(dataset), self._where), known)
        return Splits.of(parts, self._where, names, work=decoder.work, ids=self.base / self.ids if self.ids else None)

    @property
    def _chosen(self) -> Mapping[str, Any]:
        """The data set of each split that is used."""
        there = self._loaded
        for key, name in (("test", self.test), ("train", self.train)):
            if name and name not in there:
                raise InputError(f"{self._where}: {key} = {name!r}: there is no such split{did_you_mean(name, there)}")
        rest = [name for name in there if name not in (self.test, self.train)]
        test = self.test or next((name for name in (*TEST, *VALIDATION) if name in rest), "")
        if not test and len(there) == 1:
            (test,) = there
        if not test:
            raise InputError(f'{self._where}: has the splits {", ".join(there)}; say which to measure on: test = "…"')
        chosen = {"test": there[test]}
        for split, names in (("train", (self.train or "train",)), ("validation", VALIDATION)):
            if name := next((each for each in names if each in there and each != test), ""):
                chosen[split] = there[name]
        for split, dataset in chosen.items():
            if not len(dataset):
                raise InputError(f"{self._where}: the split {split!r} is empty")
        return chosen

    @cached_property
    def _loaded(self) -> Mapping[str, Any]:
        """The data set of each split there is, by the library."""
        try:
            import datasets
        except ImportError as error:
            raise InputError(
                f"{self._where}: the library datasets cannot be imported ({error}); install it: "
                "pip install 'epsbench[hf]'"
            ) from error
        shown = not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            loaded = self._load(datasets)
        # The library reads files and the network: it raises of all kinds.
        except Exception as error:
            raise InputError(
                f"{self._where}: cannot be loaded ({summary(error)}); path is a folder of save_to_disk, a folder of "
                "parquet or image files, a parquet file, or a name on the hub"
            ) from error
        finally:
            if shown:
                datasets.enable_progress_bars()
        return loaded if isinstance(loaded, Mapping) else {str(loaded.split or "test"): loaded}

    def _load(self, datasets: Any) -> Any:
        place = self._local
        if place is None:
            return datasets.load_dataset(self.path, self.config or None, revision=self.revision or None)
        if any((place / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(str(place))
        if place.is_file():
            return datasets.load_dataset("parquet", data_files={"test": str(place)})
        return datasets.load_dataset(str(place), self.config or None)

    def _columns(self, dataset: Any) -> tuple[str, str]:
        """The columns of images and of labels. Raises `InputError` where it is not clear which they are."""
        kinds = {name: type(feature).__name__ for name, feature in dataset.features.items()}
        images = self._column("images", self.images, [name for name, kind in kinds.items() if kind == "Image"], IMAGES,
                              kinds)  # fmt: skip
        labels = self._column("labels", self.labels, [name for name, kind in kinds.items() if kind == "ClassLabel"],
                              LABELS, kinds)  # fmt: skip
        if kinds[images] != "Image":
            raise InputError(
                f"{self._where}: the column {images!r} holds {kinds[images]} and no images; cast it: "
                f'dataset.cast_column("{images}", datasets.Image())'
            )
        return images, labels

    def _column(
        self, key: str, wanted: str, fitting: list[str], usual: tuple[str, ...], there: Mapping[str, str]
    ) -> str:
        if wanted:
            if wanted not in there:
                raise InputError(f"{self._where}: {key} = {wanted!r}: no such column{did_you_mean(wanted, there)}")
            return wanted
        candidates = fitting or [name for name in usual if name in there]
        if len(candidates) != 1:
            what = f"several columns may be the {key}" if candidates else f"no column holds {key}"
            raise InputError(f'{self._where}: {what} ({", ".join(candidates or there)}); name it: {key} = "…"')
        return candidates[0]

    def _labels(self, dataset: Any, column: str, split: str) -> np.ndarray:
        where = f"{self._where}, split {split!r}, column {column!r}"
        labels = np.asarray(dataset.with_format(None)[column][:])
        if labels.dtype.kind == "U":
            raise InputError(f'{where}: labels are text; number them: dataset.class_encode_column("{column}")')
        if len(labels) and labels.dtype.kind == "i" and (labels == -1).all():
            raise InputError(f'{where}: all labels are -1: the split has none; name another one: test = "…"')
        return checked_labels(labels, len(dataset), where)

    def _plain(self, dataset: Any, column: str) -> Any:
        """The data set with nothing but the bytes or the paths of its images."""
        import datasets

        only = dataset.with_format(None).select_columns([column])
        return only.cast_column(column, datasets.Image(decode=False))

    def _decoded(self, dataset: Any, column: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """The images (1, C, H, W), in their order."""

        def read(example: tuple[int, Any]) -> np.ndarray:
            return self._pixels(example[1], example[0], column, shape)[None]

        return by_threads(read, enumerate(dataset))

    def _pixels(self, example: Any, position: int, column: str, shape: tuple[int, ...] | None) -> np.ndarray:
        image = example[column] or {}
        where: object = f"{self._where}, example {position}"
        content = image.get("bytes")
        if content is None:
            if not image.get("path"):
                raise InputError(f"{where}: has no image")
            where = Path(image["path"])
            try:
                content = where.read_bytes()
            except OSError as error:
                raise InputError(f"{where}: cannot be read ({error.strerror or error})") from error
        pixels = self._shaping.pixels(content, where)
        return pixels if shape is None else of_one_size(pixels, shape, where)


def _class_names(dataset: Any, column: str) -> tuple[str, ...]:
    return tuple(map(str, getattr(dataset.features[column], "names", None) or ()))
