"""What a measure of a generative model adds to its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from epsbench.harness.records import Metric

Advance = Callable[[int], None]
"""Called by a measure as it proceeds, with the number of units of work that are newly done."""


@dataclass(frozen=True)
class Measured:
    """Parts of a record. ``a | b`` has the entries of both; for a name in both, that of ``b``."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    """Numbers with their intervals, by name."""

    curves: dict[str, list[float]] = field(default_factory=dict)
    """Lists of numbers by name; curves that belong together have the same length."""

    evaluation: dict[str, Any] = field(default_factory=dict)
    """How the numbers were measured, such as the digest of the feature network's weights: JSON values."""

    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    """Images by name: float32 (..., C, H, W) in [0, 1]."""

    each: dict[str, Tensor] = field(default_factory=dict)
    """The bound of every image it was measured on, float64 (n,), by metric. For the audits; in no record."""

    def __or__(self, other: Measured) -> Measured:
        return Measured(
            self.metrics | other.metrics,
            self.curves | other.curves,
            self.evaluation | other.evaluation,
            self.pictures | other.pictures,
            self.each | other.each,
        )
