"""What a measure of a generative model gives to its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epsbench.harness.records import Metric


@dataclass(frozen=True)
class Measured:
    """Parts of a record. ``a | b`` holds what both hold; of a name that both hold, what ``b`` says."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)

    def __or__(self, other: Measured) -> Measured:
        return Measured(
            self.metrics | other.metrics,
            self.curves | other.curves,
            self.evaluation | other.evaluation,
            self.pictures | other.pictures,
        )
