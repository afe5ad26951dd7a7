"""Models that look robust and are not: every trick of the lists is named, by a code that fits it."""

from __future__ import annotations

import copy
import sys

import pytest
from bed import chosen
from disguises import DISGUISES
from edges import EDGES
from half_truths import HALF_TRUTHS
from more_tricks import MORE_TRICKS, ROBUST_AT_A_SMALL_EPS, unfolded
from torch import nn
from tricks import TRICKS
from zoo import codes, measure

from epsbench.harness.isolation import global_state_kept

# Some of each kind: the others are measured in a full run.
SOME_TRICKS = {
    "another copy", "coarse bit", "frequencies", "gradient mode", "gradient mode, a masked class", "grey levels",
    "hidden bit", "nearest training image, random decoy", "random noise", "saturated", "single images", "temperature",
}  # fmt: skip
SOME_MORE_TRICKS = {
    "flipped for flat losses", "flipped off the grid", "function that calls", "kept by one object", "kept in a file",
    "kernels of test images", "layout in memory", "no number", "one-hot off the grid", "soft purifier",
    "temperature 40", "thread", "tires", "wobbles",
}  # fmt: skip
SOME_HALF_TRUTHS = {"overrules", "remembers half"}
SOME_DISGUISES = {
    "flag in the environment", "hidden random state", "means of rows and columns", "median filter, decoy", "reduced",
    "second object", "sum in bytes", "versions",
}  # fmt: skip


@pytest.mark.parametrize("name", chosen(TRICKS, SOME_TRICKS))
def test_a_trick_is_named(honest: nn.Module, tmp_path, name):
    make, expected = TRICKS[name]
    records = measure(make(honest).eval(), tmp_path, ['"noise"', '"fgsm"', '"pgd"'], [0.1, 0.3])
    assert codes(records) & expected
    assert "audit-failed" not in codes(records)


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return unfolded()


@pytest.mark.usefixtures("units_for_low_precision")
@pytest.mark.parametrize("name", chosen(MORE_TRICKS, SOME_MORE_TRICKS))
def test_another_trick_is_named(plain: nn.Module, tmp_path, name):
    make, expected = MORE_TRICKS[name]
    precision = "bf16" if name == "mixed precision" else "float32"
    eps = 0.02 if name in ROBUST_AT_A_SMALL_EPS else 0.15
    records = measure(make(plain).eval(), tmp_path, ['"pgd"'], [eps], precision=precision)
    assert codes(records) & expected
    assert "audit-failed" not in codes(records)


@pytest.mark.parametrize("name", chosen(HALF_TRUTHS, SOME_HALF_TRUTHS))
def test_a_trick_on_some_images_is_named(plain: nn.Module, tmp_path, name):
    make, expected = HALF_TRUTHS[name]
    records = measure(make(copy.deepcopy(plain)).eval(), tmp_path, ['"pgd"'], [0.1])
    assert codes(records) & expected
    assert "audit-failed" not in codes(records)


@pytest.mark.parametrize("name", chosen(DISGUISES, SOME_DISGUISES))
def test_a_trick_in_disguise_is_named(plain: nn.Module, tmp_path, monkeypatch, name):
    make, expected = DISGUISES[name]
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    with global_state_kept():
        records = measure(make(copy.deepcopy(plain)).eval(), tmp_path, ['"pgd"'], [0.05])
    assert codes(records) & expected
    assert "audit-failed" not in codes(records)


@pytest.mark.parametrize("name", chosen(EDGES, {"abs", "hardtanh"}))
def test_pixels_that_stay_at_the_edge_of_the_box_are_named(plain: nn.Module, tmp_path, name):
    make, expected = EDGES[name]
    same, other = (measure(network.eval(), tmp_path, ['"pgd"'], [0.1]) for network in (plain, make(plain)))
    assert not codes(same) & expected
    assert codes(other) & expected
    left, left_more = (records[0].metrics["robust_accuracy"].value for records in (same, other))
    assert left_more > left + 0.1  # of the same function on [0, 1]


def test_there_are_tricks_of_many_kinds():
    every = TRICKS | MORE_TRICKS | DISGUISES | HALF_TRUTHS
    assert len(every) == len(TRICKS) + len(MORE_TRICKS) + len(DISGUISES) + len(HALF_TRUTHS) >= 120
    measured = [TRICKS[name] for name in SOME_TRICKS] + [MORE_TRICKS[name] for name in SOME_MORE_TRICKS]
    measured += [DISGUISES[name] for name in SOME_DISGUISES] + [HALF_TRUTHS[name] for name in SOME_HALF_TRUTHS]
    of_all, of_some = (set().union(*(each for _, each in group)) for group in (every.values(), measured))
    assert of_some == of_all
    assert len(of_all) >= 15
