"""Models that look robust and are not: every trick of the list is named, by a code that fits it."""

from __future__ import annotations

import pytest
from torch import nn
from tricks import TRICKS
from zoo import codes, measure


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_named(honest: nn.Module, tmp_path, name):
    make, expected = TRICKS[name]
    records = measure(make(honest).eval(), tmp_path, ['"noise"', '"fgsm"', '"pgd"'], [0.1, 0.3])
    assert codes(records) & expected
    assert "audit-failed" not in codes(records)


def test_there_are_tricks_of_many_kinds():
    assert len(TRICKS) >= 30
    assert len(set().union(*(expected for _, expected in TRICKS.values()))) >= 10
