"""How a data set is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from epsbench.harness.plan.data import DataDescription

# The stored images and labels of the training pool, and of the test set where there is one of its own.
Stored = tuple[Tensor, Tensor]

Reader = Callable[[DataDescription, Path], tuple[Stored, Stored | None]]


@dataclass(frozen=True)
class Source:
    """How a data set is read: the reader, and the value of a white pixel."""

    read: Reader
    brightest: int = 255
