"""How a model is trained, in a few words, the same in plans, progress lines and reports. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.data import DATASETS, SUBSETS

AS_GIVEN = "as given"


def how_trained(cell: Cell) -> str:
    """``"10 epochs on 45,000 images"`` for a cell; ``"as given"`` where its model is measured as it is built.

    ``"1 epoch on 45,000 images, from weights of 18 epochs"`` where it begins with other weights.
    """
    return how_trained_record(cell.canonical())


def how_trained_record(cell: Mapping[str, Any]) -> str:
    """As `how_trained`, for a cell in the form of a record; empty where the record names no epochs."""
    own, start = own_training(cell), cell.get("start")
    if not _epochs(cell) or not isinstance(start, Mapping):
        return own
    first = _epochs({"training": cell["training"], **start})
    return f"{own}, from weights of {_spelled(first)}" if first else own


def own_training(cell: Mapping[str, Any]) -> str:
    """As `how_trained_record`, without the training of the weights that this one begins with."""
    epochs = _epochs(cell)
    if epochs is None:
        return ""
    if not epochs:
        return "as it starts" if "start" in cell else AS_GIVEN
    images = training_images(cell)
    return f"{_spelled(epochs)} on {images:,} images" if images else _spelled(epochs)


def _epochs(cell: Mapping[str, Any]) -> int | None:
    training = cell.get("training")
    epochs = training.get("epochs") if isinstance(training, Mapping) else None
    return None if isinstance(epochs, bool) or not isinstance(epochs, int) else epochs


def _spelled(epochs: int) -> str:
    return f"{epochs:,} epoch{'' if epochs == 1 else 's'}"


def training_images(cell: Mapping[str, Any]) -> int | None:
    """How many images an epoch of this cell's training takes; None where its data set is not known here."""
    data, limit, subset = DATASETS.get(str(cell.get("data"))), cell.get("limit"), cell.get("subset", "all")
    if data is None or not isinstance(subset, str) or subset not in SUBSETS or not isinstance(limit, int | None):
        return None
    return data.training_images(limit, subset)


def number_of_classes(cell: Mapping[str, Any]) -> int | None:
    """How many classes a cell's data has; None where its data set is not known here."""
    data = DATASETS.get(str(cell.get("data")))
    return data.classes if data is not None else None
