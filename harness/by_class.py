"""The accuracy of each class in the result of `epsbench.evaluate`. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from epsbench.harness.statistics import share_with_interval, wilson

if TYPE_CHECKING:
    import pandas as pd

MOST_SHOWN = 10  # classes that a printed result has a line for
CLEARLY = 0.1  # how far above 1 / K the share of the most frequent class lies where the lines are printed


def by_class(labels: np.ndarray, right: np.ndarray, robust: np.ndarray, names: Sequence[object]) -> pd.DataFrame:
    """One row for each class that has images: how many, clean and robust accuracy with 95 % intervals.

    ``labels``, ``right`` and ``robust`` are (n,); ``names`` are what the classes are called, (K,).
    """
    import pandas as pd

    rows = {}
    for index, own in _of_classes(labels, len(names)):
        row: dict[str, float] = {"images": int(own.sum())}
        for column, bits in (("clean", right[own]), ("robust", robust[own])):
            row[column], row[f"{column}_low"], row[f"{column}_high"] = share_with_interval(bits)
        rows[names[index]] = row
    return pd.DataFrame.from_dict(rows, orient="index").astype({"images": int}).rename_axis("class")


def lines(labels: np.ndarray, right: np.ndarray, robust: np.ndarray, names: Sequence[object]) -> list[str]:
    """A line for each class, where one has clearly more images than the others; none where they are balanced."""
    counts = np.bincount(labels, minlength=len(names))
    most, n = int(counts.max()), len(labels)
    chance = 1 / len(names)
    if len(names) > MOST_SHOWN or most == n or most / n < chance + CLEARLY or wilson(most, n)[0] <= chance:
        return []
    shares = [
        f"  class {names[index]}: {right[own].mean():.1%} clean, {robust[own].mean():.1%} robust, "
        f"of {int(own.sum()):,} images" for index, own in _of_classes(labels, len(names))
    ]  # fmt: skip
    return [*shares, f"  always answering {names[int(counts.argmax())]} would be right on {most / n:.1%}"]


def _of_classes(labels: np.ndarray, classes: int) -> Iterator[tuple[int, np.ndarray]]:
    """The classes that have images, each with a mask (n,) of them."""
    return ((index, labels == index) for index in range(classes) if (labels == index).any())
