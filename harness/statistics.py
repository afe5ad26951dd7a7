"""Intervals and paired tests. No torch, and of SciPy only the special functions.

They load in a tenth of a second, so each function that needs them loads them.

Every interval is two-sided. Every accuracy is a share in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
EXACT = 200  # so many changes are counted in whole numbers, and SciPy is not loaded for them


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """The z with ``(1 - confidence) / 2`` of a standard normal in each tail beyond it: 1.96 for 95 %."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, 1927), in [0, 1]; without trials, all of [0, 1].

    Raises `ValueError` unless ``0 <= successes <= n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    if n == 0:
        return 0.0, 1.0
    z = normal_quantile(confidence)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)  # exact at the ends, without rounding errors
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def share_with_interval(bits: np.ndarray) -> tuple[float, float, float]:
    """The share of true values among ``bits`` (n,), and the ends of its `wilson` interval; NaN for no values."""
    right, n = int(bits.sum()), len(bits)
    return right / n if n else math.nan, *wilson(right, n)


def ends(value: float, low: float | None, high: float | None) -> tuple[float, float]:
    """The ends of an interval around ``value``; an end that is not known is the value itself."""
    return value if low is None else low, value if high is None else high


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Mean, low and high end of the Student-t interval of independent values; one value has an infinite interval.

    Raises `ValueError` when there are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("a mean of no values")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, -math.inf, math.inf
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    from scipy import special

    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * math.sqrt(variance / n)
    return mean, mean - half, mean + half


def interval_over_seeds(values: Sequence[float], one: tuple[float | None, float | None]) -> tuple[float, float, float]:
    """`mean_interval` of the values of several seeds; of one seed, or where all agree, the interval ``one`` of a seed.

    Student's t would have a width of 0 there, although nothing is known of how far the number may be off.
    """
    mean, low, high = mean_interval(values)
    return (mean, *ends(mean, *one)) if len(set(values)) == 1 else (mean, low, high)


def mcnemar_exact(b: int, c: int) -> float:
    """The two-sided p-value of McNemar's exact test (1947) for ``b`` changes in one direction and ``c`` in the other.

    Raises `ValueError` for negative counts.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts of changes must not be negative, not {b} and {c}")
    if b == c:
        return 1.0
    if b + c <= EXACT:
        return min(1.0, sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c - 1))
    from scipy import special

    return min(1.0, 2 * float(special.bdtr(min(b, c), b + c, 0.5)))


def fisher_exact(successes: int, n: int, others: int, m: int) -> float:
    """The one-sided p-value of Fisher's exact test (1934): is ``successes`` of ``n`` more than ``others`` of ``m``?

    Raises `ValueError` unless ``0 <= successes <= n`` and ``0 <= others <= m``.
    """
    if not (0 <= successes <= n and 0 <= others <= m):
        raise ValueError(f"{successes} of {n} and {others} of {m}")
    total = successes + others
    ways = math.comb(n + m, total)
    return sum(math.comb(n, k) * math.comb(m, total - k) for k in range(successes, min(n, total) + 1)) / ways


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for testing all of them (Holm, 1979), in the order given.

    Rejecting those at most 5 % makes any false rejection among them at most 5 % likely.
    """
    m = len(p_values)
    adjusted = [0.0] * m
    running = 0.0
    for rank, index in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def paired_difference_interval(
    losses: int, gains: int, n: int, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """``(gains - losses) / n`` and its interval for paired proportions (Agresti and Min, 2005), in [-1, 1].

    Of ``n`` examples, ``losses`` were right before and wrong after, and ``gains`` the reverse. The interval is Wald's
    with half a count added to each cell of the two-by-two table.
    Raises `ValueError` unless ``losses + gains <= n`` and ``n > 0``.
    """
    if losses < 0 or gains < 0 or n < 1 or losses + gains > n:
        raise ValueError(f"{losses} losses and {gains} gains among {n} examples")
    total, change, moved = n + 2, gains - losses, losses + gains + 1
    half = normal_quantile(confidence) * math.sqrt(moved - change * change / total) / total
    return (gains - losses) / n, max(-1.0, change / total - half), min(1.0, change / total + half)


def smallest_detectable_difference(changed: int, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest paired difference that McNemar's test at level ``alpha`` finds with this power (Connor, 1987).

    ``changed`` of ``n`` examples changed in either direction; that share is taken as the noise of a comparison. A
    difference cannot exceed the share that changes, so a larger difference raises the share. Returns a share in
    (0, 1]; 1 when the test finds no difference among so few examples. Raises `ValueError` for impossible counts.
    """
    if not 0 <= changed <= n or n < 1:
        raise ValueError(f"{changed} changed among {n} examples")
    reject, miss = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    noise = changed / n

    def needed(difference: float) -> float:
        share = max(noise, difference)
        return (reject * math.sqrt(share) + miss * math.sqrt(share - difference**2)) ** 2 / difference**2

    low, high = 0.0, 1.0
    if needed(high) > n:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if needed(middle) <= n else (middle, high)
    return high


def difference_test(value_a: float, error_a: float, value_b: float, error_b: float) -> float:
    """The two-sided p-value of the unpaired z-test for two means with these standard errors."""
    error = math.hypot(error_a, error_b)
    if error == 0:
        return 1.0 if value_a == value_b else 0.0
    return 2 * NormalDist().cdf(-abs(value_b - value_a) / error)
