"""Models that look robust and are not: every trick of the list is named, by a code that fits it."""

from __future__ import annotations

import pytest
from more_tricks import MORE_TRICKS, ROBUST_AT_A_SMALL_EPS, unfolded
from torch import nn
from tricks import TRICKS
from zoo import codes, measure


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_named(honest: nn.Module, tmp_path, name):
    make, expected = TRICKS[name]
    records = measure(make(honest).eval(), tmp_path, ['"noise"', '"fgsm"', '"pgd"'], [0.1, 0.3])
    assert codes(records) & expected
    assert "audit-failed" not in codes(records)


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return unfolded()


@pytest.mark.parametrize("name", MORE_TRICKS)
def test_another_trick_is_named(plain: nn.Module, tmp_path, name):
    make, expected = MORE_TRICKS[name]
    precision = "bf16" if name == "mixed precision" else "float32"
    eps = 0.02 if name in ROBUST_AT_A_SMALL_EPS else 0.15
    records = measure(make(plain).eval(), tmp_path, ['"pgd"'], [eps], precision=precision)
    assert codes(records) & expected
    assert "audit-failed" not in codes(records)


def test_there_are_tricks_of_many_kinds():
    every = TRICKS | MORE_TRICKS
    assert len(every) == len(TRICKS) + len(MORE_TRICKS) >= 80
    assert len(set().union(*(expected for _, expected in every.values()))) >= 15
