"""An attack on ranges of its targets, put together, is the attack on all of them: every verdict, distance and count."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch
from engines import CPU, EPS, plain, targets_of
from hypothesis import given, settings
from hypothesis import strategies as st

from epsbench.attacks import APGD, APGDT, FGSM, MIFGSM, PGD, Ensemble, Noise, Square
from epsbench.attacks.ddn import DDN
from epsbench.attacks.norms import L2, LInf
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.ledger import ARRAYS, COUNTS
from epsbench.harness.run.attack.merging import Shard, merged, zero_gradients
from epsbench.harness.run.attack.returned import Returned

N = 40
ATTACKS = {
    "noise": Noise(),
    "fgsm": FGSM(),
    "pgd": PGD(steps=5, restarts=2, random_start=True),
    "pgd-l2": PGD(steps=4, norm=L2()),
    "mi-fgsm": MIFGSM(steps=3),
    "apgd": APGD(steps=6),
    "square": Square(steps=20),
    "ddn": DDN(steps=8, norm=L2()),
    "ensemble": Ensemble(parts=(APGD(steps=4), APGDT(steps=3, targets=2), Square(steps=15)), norm=LInf()),
}


@pytest.fixture(scope="module")
def engine(network, digits):
    _, _, targets = targets_of(network, digits, N)
    return Engine(plain(network), Judge(network, CPU), targets, 16, keep=17)


def shards_of(engine, attack, cuts, **options):
    ends = [0, *sorted(cuts), N]
    for first, last in pairwise(ends):
        own = engine.on(torch.arange(first, last))
        outcomes = tuple(own.run(attack, EPS, seed=3, **options))
        yield Shard(first, last, outcomes, own.clean.zero)


def assert_equal(ours, theirs):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert torch.equal(ours.images, theirs.images)
    assert (ours.eps, ours.radii) == (theirs.eps, theirs.radii)
    for name in set(COUNTS) - {"seconds"}:
        assert getattr(ours, name) == getattr(theirs, name), name
    for each in fields(Returned):
        assert getattr(ours.returned, each.name) == getattr(theirs.returned, each.name)
    assert (ours.distances is None) == (theirs.distances is None)
    if ours.distances is not None:
        np.testing.assert_array_equal(ours.distances, theirs.distances)
    assert len(ours.parts) == len(theirs.parts)
    for our, their in zip(ours.parts, theirs.parts, strict=True):
        np.testing.assert_array_equal(our.fooled, their.fooled)
        for each in fields(our):
            if each.name not in ("fooled", "seconds"):
                assert getattr(our, each.name) == getattr(their, each.name), each.name


@pytest.mark.parametrize("name", ATTACKS)
@settings(max_examples=3)
@given(
    cuts=st.sets(st.integers(1, N - 1), max_size=3),
    curve=st.sampled_from(["each", "nested", "bisect"]),
    early_stop=st.booleans(),
)
def test_merged_equals_whole_wherever_the_ranges_are_cut(engine, name, cuts, curve, early_stop):
    attack, options = ATTACKS[name], {"curve": curve, "early_stop": early_stop}
    whole = Engine(engine.victim, engine.judge, engine.targets, 16, keep=17)
    expected = list(whole.run(attack, EPS, seed=3, **options))
    shards = list(shards_of(engine, attack, cuts, **options))
    outcomes = merged(shards[::-1])  # whoever is ready first
    for ours, theirs in zip(outcomes, expected, strict=True):
        assert_equal(ours, theirs)
    zero = zero_gradients(shards)
    assert (zero is None) == (whole.clean.zero is None)
    assert zero is None or np.array_equal(zero, whole.clean.zero)


@pytest.mark.parametrize("ranges", [[], [(0, 10), (20, N)], [(0, 30), (20, N)], [(1, N)]])
def test_ranges_that_leave_a_target_out_or_overlap_are_refused(ranges):
    with pytest.raises(ValueError, match="must follow each other"):
        merged([Shard(first, last, ()) for first, last in ranges])
