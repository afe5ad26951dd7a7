"""Numbers with their 95 % intervals, as records hold them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.records import Metric
from epsbench.harness.statistics import mean_interval, wilson


def proportion(bits: np.ndarray) -> Metric:
    """The share of true bits with its Wilson interval."""
    low, high = wilson(int(bits.sum()), len(bits))
    return Metric(value=float(bits.mean()), low=low, high=high, n=len(bits))


def mean_metric(values: Tensor) -> Metric:
    """The mean of one value an example, (n,), with its 95 % interval.

    Raises `ArithmeticError` where not every value is a finite number: the model has diverged.
    """
    if broken := int((~torch.isfinite(values)).sum()):
        raise ArithmeticError(f"{broken} of {len(values)} measured values are no finite number; lower learning_rate")
    mean, low, high = mean_interval(values.tolist())
    interval = (low, high) if np.isfinite(low) else (None, None)  # one example says nothing about the spread
    return Metric(value=mean, low=interval[0], high=interval[1], n=len(values))
