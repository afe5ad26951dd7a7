"""Numbers with their 95 % intervals, as records hold them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.records import Metric
from epsbench.harness.statistics import CONFIDENCE, mean_interval, share_with_interval


def share_of(rows: Tensor) -> float:
    """The share of true values among ``rows``, bool (N,)."""
    return float(rows.float().mean())


def proportion(bits: np.ndarray) -> Metric:
    """The share of true values among ``bits``, bool (n,), with its Wilson interval."""
    value, low, high = share_with_interval(bits)
    return Metric(value=value, low=low, high=high, n=len(bits))


def mean_metric(values: Tensor) -> Metric:
    """The mean of one value an example, (n,), with its 95 % interval.

    One value has no interval. Raises `ArithmeticError` if a value is not finite: then the model has diverged.
    """
    if broken := int((~torch.isfinite(values)).sum()):
        raise ArithmeticError(f"{broken} of {len(values)} measured values are no finite number")
    mean, low, high = mean_interval(values.tolist())
    interval = (low, high) if np.isfinite(low) else (None, None)
    return Metric(value=mean, low=interval[0], high=interval[1], n=len(values))


def median_metric(values: Tensor) -> Metric:
    """The median of (n,) values with a 95 % interval whose ends are two of the values.

    The interval holds for every distribution. Its ranks are those of the sign test: the number of values below the
    median is binomial (Conover, Practical Nonparametric Statistics, 1999, section 3.2). Fewer than six values have no
    interval.
    """
    n, ordered = len(values), values.double().sort().values
    from scipy import special  # takes a tenth of a second to load

    rank = int((special.bdtr(np.arange(n), n, 0.5) <= (1 - CONFIDENCE) / 2).sum())
    interval = (ordered[rank - 1].item(), ordered[n - rank].item()) if rank else (None, None)
    return Metric(value=ordered.quantile(0.5).item(), low=interval[0], high=interval[1], n=n)
