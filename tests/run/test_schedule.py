"""Schedules: whatever the order of verdicts, every example gets one at every ε, and no row is attacked twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.run.schedule import CURVES, Bisect, Each, Nested


def drive(schedule: Each, breaks_at: np.ndarray, batch: int, rng: np.random.Generator) -> list[int]:
    """Play the attack: an example falls, at its last restart, from the ε index ``breaks_at`` on."""
    attacked: list[int] = []
    while len(schedule):
        rows = schedule.take(batch)
        attacked.extend(rows.tolist())
        eps_index, restart, example = schedule.split(rows)
        fooled = (eps_index >= breaks_at[example]) & (restart == schedule.restarts - 1)
        order = rng.permutation(len(rows))
        schedule.settle(rows[order], fooled[order])
    return attacked


@given(
    kind=st.sampled_from(list(CURVES.values())),
    eps_count=st.integers(1, 9),
    examples=st.integers(1, 12),
    restarts=st.integers(1, 3),
    batch=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_a_monotone_curve_is_found_exactly_and_no_row_runs_twice(kind, eps_count, examples, restarts, batch, seed):
    rng = np.random.default_rng(seed)
    breaks_at = rng.integers(0, eps_count + 1, examples)
    schedule = kind(eps_count, examples, restarts)
    attacked = drive(schedule, breaks_at, batch, rng)
    assert len(attacked) == len(set(attacked))
    assert schedule.settled.all()
    expected = np.arange(eps_count)[:, None] >= breaks_at
    np.testing.assert_array_equal(schedule.fooled, expected)


@pytest.mark.parametrize("eps_count", [1, 2, 7, 8, 15])
def test_bisection_takes_the_logarithm_of_the_work(eps_count):
    rng = np.random.default_rng(0)
    breaks_at = rng.integers(0, eps_count + 1, 200)
    most = math.ceil(math.log2(eps_count + 1)) * 200
    assert len(drive(Bisect(eps_count, 200, 1), breaks_at, 64, rng)) <= most
    assert len(drive(Each(eps_count, 200, 1), breaks_at, 64, rng)) == eps_count * 200


def test_nested_attacks_up_to_the_first_eps_that_fools():
    breaks_at = np.array([0, 1, 2, 3, 4])
    attacked = drive(Nested(4, 5, 1), breaks_at, 2, np.random.default_rng(0))
    assert len(attacked) == 1 + 2 + 3 + 4 + 4


def test_each_goes_through_the_eps_in_order():
    schedule = Each(3, 4, 2)
    assert schedule.take(5).tolist() == [0, 1, 2, 3, 8]
    schedule.settle(np.array([0, 1]), np.array([True, False]))
    assert schedule.take(1).tolist() == [5], "the restart of the first ε comes before the second ε"
