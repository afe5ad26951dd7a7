"""Clipped Density and Clipped Coverage (Salvy et al., 2025, arXiv:2507.01761), which read as shares of good samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from epsbench.harness.records import Metric
from epsbench.harness.run.generative.overlap import Overlap
from epsbench.harness.run.metrics import mean_metric


def clipped_density(overlap: Overlap) -> Metric:
    """The mean share of k clipped balls that a sample lies in, relative to that of the real points; at most 1.

    A few outlying images with wide balls cannot make noise look good, and samples in crowded places cannot make up for
    others that are far away. If a share p of the samples is good and the rest is far away, it is about p.
    """
    ideal = overlap.clipped_real.mean().item()
    return _mapped(mean_metric(overlap.clipped), lambda value: min(value / ideal, 1.0) if ideal else 0.0)


def clipped_coverage(overlap: Overlap) -> Metric:
    """The share of good samples that would fill the balls of the real points as much if all others were far away."""
    expected = filling(len(overlap.filled), len(overlap.clipped), overlap.k)
    share = np.linspace(0, 1, len(expected))
    return _mapped(mean_metric(overlap.filled), lambda value: float(np.interp(value, expected, share)))


def filling(n: int, m: int, k: int) -> np.ndarray:
    """How full the balls of n real points are when 0, 1, ..., m samples have their distribution: float64 (m + 1,).

    A ball with J samples counts min(J, k) / k. The ball that reaches to the k-th nearest of n − 1 other points holds a
    share of the distribution that follows Beta(k, n − k), so J is beta-binomial. Rises from 0.
    """
    from scipy import stats  # takes a second to load, and few runs need it

    samples = np.arange(m + 1)
    at_most = np.cumsum([stats.betabinom.pmf(j, samples, k, n - k) for j in range(k)], axis=0)
    # E[min(J, k)] is the sum of P(J > j) over j < k.
    return (1 - at_most).mean(0)


def _mapped(metric: Metric, scale: Callable[[float], float]) -> Metric:
    """A metric and its interval on another scale, which rises with this one from 0."""
    low, high = (None if end is None else scale(max(end, 0.0)) for end in (metric.low, metric.high))
    return Metric(value=scale(metric.value), low=low, high=high, n=metric.n)
