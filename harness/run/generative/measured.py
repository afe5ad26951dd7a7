"""What a measure of a generative model gives to its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.records import Metric
from harness.statistics import mean_interval


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


def mean_metric(values: Tensor) -> Metric:
    """The mean of one value an example, (n,), with its 95 % interval.

    Raises `ArithmeticError` where not every value is a finite number: the model has diverged.
    """
    if broken := int((~torch.isfinite(values)).sum()):
        raise ArithmeticError(f"{broken} of {len(values)} measured values are no finite number; lower learning_rate")
    mean, low, high = mean_interval(values.tolist())
    interval = (low, high) if np.isfinite(low) else (None, None)  # one example says nothing about the spread
    return Metric(value=mean, low=interval[0], high=interval[1], n=len(values))
