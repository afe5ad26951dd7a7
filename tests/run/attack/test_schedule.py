"""Schedules: whatever the order of verdicts, every example gets one at every ε, and no row is attacked twice."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.run.attack.schedule import CURVES, Bisect, Each, Nested, _cheapest_steps, in_ball


def radii(count: int) -> list[float]:
    return [(k + 1) / 10 for k in range(count)]


def drive(
    schedule: Each, breaks_at: np.ndarray, batch: int, rng: np.random.Generator, *, near: float = 1.0
) -> list[int]:
    """Play the attack: an example falls, at its last restart, from the ε index ``breaks_at`` on.

    Its image lies ``near`` as far from the clean one as it may, where that fools.
    """
    attacked: list[int] = []
    while len(schedule):
        rows = schedule.take(batch)
        attacked.extend(rows.tolist())
        eps_index, restart, example = schedule.split(rows)
        fooled = (eps_index >= breaks_at[example]) & (restart == schedule.restarts - 1)
        smallest = schedule.eps[np.minimum(breaks_at[example], len(schedule.eps) - 1)]
        size = np.where(fooled, np.maximum(smallest, near * schedule.eps[eps_index]), schedule.eps[eps_index])
        order = rng.permutation(len(rows))
        schedule.settle(rows[order], fooled[order], size[order])
    return attacked


@given(
    kind=st.sampled_from(list(CURVES.values())),
    eps_count=st.integers(1, 9),
    examples=st.integers(1, 12),
    restarts=st.integers(1, 3),
    batch=st.integers(1, 20),
    price=st.sampled_from([0.1, 0.5, 1.0]),
    near=st.sampled_from([0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_monotone_curve_is_found_exactly_and_no_row_runs_twice(
    kind, eps_count, examples, restarts, batch, price, near, seed
):
    rng = np.random.default_rng(seed)
    breaks_at = rng.integers(0, eps_count + 1, examples)
    schedule = kind(radii(eps_count), examples, restarts, price)
    attacked = drive(schedule, breaks_at, batch, rng, near=near)
    assert len(attacked) == len(set(attacked))
    assert schedule.settled.all()
    expected = np.arange(eps_count)[:, None] >= breaks_at
    np.testing.assert_array_equal(schedule.fooled, expected)


@pytest.mark.parametrize("eps_count", [1, 2, 7, 8, 15])
def test_bisection_takes_the_logarithm_of_the_work(eps_count):
    rng = np.random.default_rng(0)
    breaks_at = rng.integers(0, eps_count + 1, 200)
    most = math.ceil(math.log2(eps_count + 1)) * 200
    assert len(drive(Bisect(radii(eps_count), 200, 1), breaks_at, 64, rng)) <= most
    assert len(drive(Each(radii(eps_count), 200, 1), breaks_at, 64, rng)) == eps_count * 200


def test_nested_attacks_up_to_the_first_eps_that_fools():
    breaks_at = np.array([0, 1, 2, 3, 4])
    attacked = drive(Nested(radii(4), 5, 1), breaks_at, 2, np.random.default_rng(0))
    assert len(attacked) == 1 + 2 + 3 + 4 + 4


def test_each_goes_through_the_eps_in_order():
    schedule = Each(radii(3), 4, 2)
    assert schedule.take(5).tolist() == [0, 1, 2, 3, 8]
    schedule.settle(np.array([0, 1]), np.array([True, False]), np.array([0.1, 0.1]))
    assert schedule.take(1).tolist() == [5], "the restart of the first ε comes before the second ε"


def test_bisection_learns_from_how_near_an_image_is():
    """All fall at the smallest ε; an image found at a large one that lies within the smallest settles the example."""
    breaks_at, rng = np.zeros(50, dtype=int), np.random.default_rng(0)
    assert len(drive(Bisect(radii(8), 50, 1, 0.2), breaks_at, 16, rng, near=0.0)) == 50
    assert len(drive(Bisect(radii(8), 50, 1, 0.2), breaks_at, 16, rng)) > 100


def test_a_verdict_is_not_taken_back():
    """An image within an ε that the example withstood says that the attack missed one there, and changes nothing."""
    schedule = Bisect(radii(3), 1, 1)
    (row,) = schedule.take(1)
    assert schedule.split(np.array([row]))[0] == [1]
    schedule.settle(np.array([row]), np.array([False]), np.array([0.2]))
    (row,) = schedule.take(1)
    schedule.settle(np.array([row]), np.array([True]), np.array([0.05]))
    assert schedule.fooled[:, 0].tolist() == [False, False, True]


@pytest.mark.parametrize("price", [0.1, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_next_eps_is_the_one_that_costs_least(count, price):
    """Against every plan there is, by trying: a plan says, for each number of untried ε, which of them comes next."""

    def mean_cost(plan: tuple[int, ...]) -> float:
        def cost(untried: int, answer: int) -> float:
            if untried == 0:
                return 0.0
            tried = plan[untried - 1]
            if answer < tried:  # one of the ε up to it fools
                return price + cost(tried - 1, answer)
            return 1.0 + cost(untried - tried, answer - tried)

        return sum(cost(count, answer) for answer in range(count + 1)) / (count + 1)

    plans = itertools.product(*(range(1, n + 1) for n in range(1, count + 1)))
    chosen = tuple(_cheapest_steps(count, price)[1:].tolist())
    assert mean_cost(chosen) == pytest.approx(min(map(mean_cost, plans)))


def test_what_a_sum_of_many_pixels_is_rounded_by_leaves_an_image_in_its_ball():
    """A float32 near 60 is rounded by up to 2e-6, and by more after many additions."""
    radii, beyond = [0.1, 60.0], {0.1: (5e-7, 5e-6), 60.0: (1.5e-5, 1e-3)}
    for eps, (rounded, further) in beyond.items():
        for size, inside in ((eps + rounded, True), (eps + further, False)):
            assert bool(in_ball(np.array([size], dtype=np.float32), np.array([eps]))[0]) is inside
            assert bool(in_ball(torch.tensor([size]), torch.tensor([eps]))[0]) is inside
            schedule = Bisect([*radii, 200.0], 1, 1)
            schedule._decide(np.array([2]), np.array([0]), np.array([True]), np.array([size], dtype=np.float32))
            assert schedule.broke[0] == radii.index(eps) + (not inside)


def test_one_change_too_many_is_outside_however_many_there_are():
    for count in (3, 1e6, 3e6):
        eps = torch.tensor([count])
        assert bool(in_ball(eps, eps)[0])
        assert not bool(in_ball(eps + 1, eps)[0])
        assert not bool(in_ball(np.array([count + 1]), np.array([count]))[0])
