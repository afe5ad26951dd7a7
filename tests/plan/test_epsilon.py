"""ε is exact, has one spelling, and refuses what is no ε."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.errors import InputError
from epsbench.harness.plan.epsilon import format_epsilon, is_rounded, parse_epsilon


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        ("8/255", Fraction(8, 255)),
        (" 8 / 255 ", Fraction(8, 255)),
        ("16/510", Fraction(8, 255)),
        ("0.5/255", Fraction(1, 510)),
        (".5 / 1.0", Fraction(1, 2)),
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
        ("1/0.0", "divides by zero"),
        ("1//255", "not a number"),
        ("./255", "not a number"),
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
        assert abs(float(parse_epsilon(value)) - value) <= (2 * math.ulp(value) if is_rounded(value) else 0)
    else:
        with pytest.raises(ValueError, match="not a number"):
            parse_epsilon(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.15000000000000002, "0.15"), (0.35000000000000003, "0.35"), (8 / 255, "8/255"), (1 / 3, "85/255"),
     (1 / 7, "1/7"), (0.1 + 0.2, "0.3"), (0.30000000000000004, "0.3"), (1 / 255, "1/255"), (0.7000000000000001, "0.7")],
)  # fmt: skip
def test_a_float_that_arithmetic_rounded_means_what_it_was_rounded_from(value, text):
    assert is_rounded(value)
    assert format_epsilon(parse_epsilon(value)) == text


@pytest.mark.parametrize("n", range(1, 256))
def test_every_grey_level_is_recognised_from_its_float(n):
    assert parse_epsilon(n / 255) == Fraction(n, 255)


@pytest.mark.parametrize("value", [0.1, 0.031, 0.12345678901234, 1e-5, 0.3])
def test_a_float_that_somebody_typed_is_taken_as_typed(value):
    assert not is_rounded(value)
    assert parse_epsilon(value) == Fraction(repr(value))


SUITE = '[robustness]\ndata = "digits"\n[robustness.matrix]\nmodel = "smallcnn"\nattack = "fgsm"\neps = '


def test_a_rounded_twin_of_another_entry_is_left_out(load):
    suite = load(SUITE + '["8/255", 0.03137254901960784, 0.10000000000000002, 0.1, 0.10000000000000002]')
    assert {format_epsilon(cell.eps) for cell in suite.cells} == {"8/255", "0.1"}


def test_what_is_written_twice_is_still_refused(load):
    with pytest.raises(InputError, match="entry 1 repeats entry 0"):
        load(SUITE + "[0.1, 0.1]")
