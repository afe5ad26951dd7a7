"""ε is exact, has one spelling, and refuses what is no ε."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.plan.epsilon import format_epsilon, parse_epsilon


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        ("8/255", Fraction(8, 255)),
        (" 8 / 255 ", Fraction(8, 255)),
        ("16/510", Fraction(8, 255)),
        ("0.3", Fraction(3, 10)),
        (0.3, Fraction(3, 10)),
        (1e-05, Fraction(1, 100_000)),
        ("3e-1", Fraction(3, 10)),
        (0, Fraction(0)),
        (1, Fraction(1)),
        ("1.", Fraction(1)),
        (Fraction(1, 7), Fraction(1, 7)),
    ],
)
def test_every_spelling_means_the_same_number(value, exact):
    assert parse_epsilon(value) == exact


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1/0", "divides by zero"),
        ("0/0", "divides by zero"),
        ("-8/255", "negative"),
        (-0.1, "negative"),
        (1.01, "above 1"),
        ("8", "above 1"),
        ("256/255", "above 1"),
        ("eight", "not a number"),
        ("", "not a number"),
        ("nan", "not a number"),
        (float("nan"), "not a number"),
        (float("inf"), "not a number"),
        ("1e999999999", "not a number"),
        ("٣/255", "not a number"),
        ("1_0/255", "not a number"),
        pytest.param("1" * 5000, "not a number", id="long"),
        pytest.param(10**5000, "not a number", id="huge"),
        (True, "must be a number"),
        (None, "must be a number"),
        ([1], "must be a number"),
    ],
)
def test_what_is_no_epsilon_is_refused_with_the_remedy(value, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        parse_epsilon(value)
    assert '"8/255"' in str(raised.value)


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (Fraction(3, 10), "0.3"),
        (Fraction(0), "0"),
        (Fraction(1), "1"),
        (Fraction(1, 4), "0.25"),
        (Fraction(8, 255), "8/255"),
        (Fraction(51, 255), "0.2"),
        (Fraction(1, 3), "85/255"),
        (Fraction(1, 8), "0.125"),
        (Fraction(1, 7), "1/7"),
    ],
)
def test_one_spelling_a_value(eps, text):
    assert format_epsilon(eps) == text


@given(st.fractions(min_value=0, max_value=1, max_denominator=10**9))
def test_the_spelling_reads_back_exactly(eps):
    assert parse_epsilon(format_epsilon(eps)) == eps


@given(st.floats(min_value=0, max_value=1))
def test_a_float_means_the_decimal_it_prints_as_or_is_refused(value):
    text = repr(value)
    if abs(int(text.partition("e")[2] or 0)) < 100:
        assert float(parse_epsilon(value)) == value
    else:
        with pytest.raises(ValueError, match="not a number"):
            parse_epsilon(value)
