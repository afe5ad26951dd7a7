"""Data sets that were decoded into files of the cache, by the digest of their content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from epsbench.harness.errors import InputError
from epsbench.harness.files import DAMAGED_ARCHIVE
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.plan.data.budget import budget
from epsbench.harness.plan.data.decoded import decoded_folder, forget
from epsbench.harness.plan.data.pixels import PixelFile
from epsbench.harness.plan.data.source import DataSource, Part, Splits

_SPLITS = ("train", "validation", "test")
_INDEX = "index.npz"


def open_data(source: DataSource, description: DataDescription) -> Splits:
    """The splits that ``description`` describes: from the cache where they are, else from the source.

    Raises `InputError` where the source does not hold the same any more.
    """
    kept = stored(description.content)
    if kept is not None:
        return _in_memory(kept) if _size(kept) <= budget() else kept
    splits = source.read()
    if source.content(splits) != description.content:
        raise InputError(
            f"data {source.label!r}: gives other images or labels than a moment before; leave its files alone during a "
            "run, and let code of your own give the same every time; what is recorded stays"
        )
    return store(description.content, splits)


def store(content: str, splits: Splits) -> Splits:
    """Keep the files that splits were decoded into under the digest of their content; splits in memory stay there."""
    if splits.work is None:
        return splits
    index: dict[str, Any] = {"class_names": np.asarray(splits.class_names, dtype=str)}
    for name, part in zip(_SPLITS, splits.parts, strict=True):
        if part is not None:
            assert isinstance(part.images, PixelFile)
            place = np.asarray(part.images.path.name)
            index |= {f"{name}_file": place, f"{name}_rows": part.images.rows, f"{name}_labels": part.labels}
    with splits.work.writing(), (splits.work.path / _INDEX).open("wb") as file:
        np.savez(file, **index)
    splits.work.keep(content)
    return replace(splits, work=None)


def stored(content: str) -> Splits | None:
    """The splits with this content, where an earlier reading has decoded them into files; None for damaged ones."""
    folder = decoded_folder() / content
    if not content or not folder.is_dir():
        return None
    try:
        with (folder / _INDEX).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            index = {name: archive[name] for name in archive.files}
        files = {str(index[name]) for name in index if name.endswith("_file")}
        images = {name: PixelFile(folder / name) for name in files}
        parts = {name: _part(index, name, images) for name in _SPLITS if f"{name}_file" in index}
        names = tuple(map(str, index["class_names"]))
        return Splits(parts["test"], parts.get("train"), parts.get("validation"), names)
    except DAMAGED_ARCHIVE:
        forget(content)  # decoded anew
        return None


def _part(index: Mapping[str, np.ndarray], name: str, images: Mapping[str, PixelFile]) -> Part:
    chosen = images[str(index[f"{name}_file"])].take(index[f"{name}_rows"])
    if len(chosen) != len(index[f"{name}_labels"]):
        raise ValueError(f"{name}: as many labels as images are needed")
    return Part(chosen, index[f"{name}_labels"])


def _in_memory(splits: Splits) -> Splits:
    train, validation, test = (None if part is None else Part(part.images[:], part.labels) for part in splits.parts)
    assert test is not None
    return replace(splits, test=test, train=train, validation=validation)


def _size(splits: Splits) -> int:
    return sum(part.images.nbytes for part in splits.parts if part is not None)
