"""Intervals and tests against SciPy's own, closed forms, and their defining properties."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from epsbench.harness.statistics import (
    difference_test,
    ends,
    fisher_exact,
    holm,
    mcnemar_exact,
    mean_interval,
    paired_difference_interval,
    share_with_interval,
    smallest_detectable_difference,
    wilson,
)

p_values = st.lists(st.floats(0, 1), max_size=20)


@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95, 0.99])
)
def test_wilson_is_scipys(counts, confidence):
    successes, n = counts
    reference = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_wilson_at_the_ends_is_exact_and_of_nothing_is_everything():
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_share_has_the_interval_of_its_count():
    assert share_with_interval(np.array([True, False, True, True])) == (0.75, *wilson(3, 4))
    nothing = share_with_interval(np.zeros(0, dtype=bool))
    assert math.isnan(nothing[0])
    assert nothing[1:] == (0.0, 1.0)


def test_an_end_that_is_not_known_is_the_value():
    assert ends(0.5, 0.25, None) == (0.25, 0.5)
    assert ends(0.5, None, 0.75) == (0.5, 0.75)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="trials"):
        wilson(successes, n)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12).filter(lambda v: max(v) - min(v) > 1e-6))
def test_mean_interval_is_scipys(values):
    mean, low, high = mean_interval(values)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert (low, high) == pytest.approx((reference.low, reference.high), rel=1e-6, abs=1e-6)


def test_mean_interval_of_one_value_is_unbounded_and_of_none_is_refused():
    assert mean_interval([0.5]) == (0.5, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test(b, c):
    reference = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(reference, rel=1e-9)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


def test_mcnemar_by_hand_and_bad_counts():
    assert mcnemar_exact(0, 6) == pytest.approx(2 / 64)
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_fisher_is_the_test_of_a_two_by_two_table(a, b, c, d):
    reference = stats.fisher_exact([[a, b], [c, d]], alternative="greater").pvalue
    assert fisher_exact(a, a + b, c, c + d) == pytest.approx(reference, rel=1e-7, abs=1e-12)


def test_fisher_by_hand_and_bad_counts():
    assert fisher_exact(3, 3, 0, 3) == pytest.approx(1 / 20)
    with pytest.raises(ValueError, match="5 of 4"):
        fisher_exact(5, 4, 0, 3)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(p_values)
def test_holm_never_lowers_keeps_order_and_stays_below_bonferroni(values):
    adjusted = holm(values)
    for before, after in zip(values, adjusted, strict=True):
        assert before <= after <= min(1.0, before * len(values)) + 1e-12
    order = sorted(range(len(values)), key=values.__getitem__)
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(order))


@given(p_values, st.randoms())
def test_holm_does_not_depend_on_the_order(values, random):
    shuffled = list(range(len(values)))
    random.shuffle(shuffled)
    adjusted = holm([values[i] for i in shuffled])
    assert adjusted == [holm(values)[i] for i in shuffled]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 2000))
def test_paired_interval_is_antisymmetric_and_inside(losses, gains, rest):
    n = losses + gains + rest
    difference, low, high = paired_difference_interval(losses, gains, n)
    assert -1 <= low <= high <= 1
    assert low <= difference <= high
    assert paired_difference_interval(gains, losses, n) == pytest.approx((-difference, -high, -low))


def test_paired_interval_is_walds_for_many_examples():
    losses, gains, n = 400, 300, 100_000
    error = math.sqrt(losses + gains - (gains - losses) ** 2 / n) / n
    expected = (-0.001, -0.001 - 1.96 * error, -0.001 + 1.96 * error)
    assert paired_difference_interval(losses, gains, n) == pytest.approx(expected, abs=2e-5)


def test_paired_interval_covers_as_often_as_it_says():
    """Exact coverage at n = 100, 12 % lost, 6 % gained, summed over the trinomial distribution."""
    n, lost, gained = 100, 0.12, 0.06
    covered = 0.0
    for losses in range(45):
        for gains in range(35):
            _, low, high = paired_difference_interval(losses, gains, n)
            if low <= gained - lost <= high:
                covered += stats.multinomial.pmf(
                    [losses, gains, n - losses - gains], n, [lost, gained, 1 - lost - gained]
                )
    assert 0.94 < covered < 0.97


@pytest.mark.parametrize(("losses", "gains", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_paired_interval_refuses_impossible_counts(losses, gains, n):
    with pytest.raises(ValueError, match="examples"):
        paired_difference_interval(losses, gains, n)


def test_smallest_detectable_difference_has_the_power_that_it_promises():
    """At that difference McNemar's exact test finds the change in about 80 % of draws; power summed exactly."""
    n, changed = 2000, 200
    difference = smallest_detectable_difference(changed, n)
    lost_share = (changed / n + difference) / 2 / (changed / n)
    power = 0.0
    for moved in range(120, 290):
        at_all = stats.binom.pmf(moved, n, changed / n)
        critical = max((k for k in range(moved // 2) if mcnemar_exact(k, moved - k) < 0.05), default=-1)
        power += at_all * stats.binom.cdf(critical, moved, 1 - lost_share)
    assert 0.74 < power < 0.82


def test_smallest_detectable_difference_shrinks_with_examples_and_is_all_for_very_few():
    assert smallest_detectable_difference(1, 3) == 1.0
    differences = [smallest_detectable_difference(n // 10, n) for n in (100, 1000, 10_000, 100_000)]
    assert differences == sorted(differences, reverse=True)
    with pytest.raises(ValueError, match="changed"):
        smallest_detectable_difference(5, 4)


def test_difference_test():
    assert difference_test(0.5, 0.01, 0.5 + 1.959964 * math.hypot(0.01, 0.02), 0.02) == pytest.approx(0.05, abs=1e-6)
    assert difference_test(0.5, 0.0, 0.5, 0.0) == 1.0
    assert difference_test(0.5, 0.0, 0.6, 0.0) == 0.0
