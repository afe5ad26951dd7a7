"""The types of a reader and of what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from epsbench.harness.plan.data import DataDescription

Stored = tuple[Tensor, Tensor]
"""Images, uint8 (n, C, H, W), and labels, int64 (n,), as they are stored."""

Reader = Callable[[DataDescription, Path], tuple[Stored, Stored | None]]
"""Reads a data set from a folder: the training pool, and the test set if the data set has a separate one."""


@dataclass(frozen=True)
class Source:
    """How a data set is read."""

    read: Reader
    """Reads it from a folder."""

    brightest: int = 255
    """The stored value of a white pixel."""
