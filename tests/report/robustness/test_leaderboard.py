"""The leaderboard: the worst case per example, ranks by intervals, and failed and void cells."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import factory
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.robustness.leaderboard import Board, Row, boards, rank
from epsbench.harness.report.robustness.scores import Score, over_seeds, score_entry, worst_case
from epsbench.harness.report.robustness.tables import leaderboard_table
from epsbench.harness.statistics import mean_interval, wilson

NOISE, FGSM, PGD = {"name": "noise"}, {"name": "fgsm", "steps": 1}, {"name": "pgd", "steps": 40}


def board(*records) -> Board:
    (made,) = boards(Results(Path("results"), records, ()))
    return made


def bits(*right: int, n: int = 10) -> np.ndarray:
    made = np.zeros(n, dtype=bool)
    made[list(right)] = True
    return made


everything = np.ones(10, dtype=bool)


def row_with(low: float, high: float, label: str = "m") -> Row:
    score = Score("ok", (low + high) / 2, low, high, 100)
    return Row(label, "none", "none", "", (0,), score, {}, {Fraction(1, 10): score}, ())


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5))
def test_worst_case_is_right_under_every_attack(verdicts):
    by_hand = [all(attack[i] for attack in verdicts) for i in range(6)]
    assert worst_case([np.array(attack) for attack in verdicts]).tolist() == by_hand


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=3, max_size=3))
def test_the_boards_worst_case_is_the_brute_force_one(verdicts):
    clean = np.ones(9, dtype=bool)
    made = board(*(factory.robustness(clean, v, attack=a) for v, a in zip(verdicts, (NOISE, FGSM, PGD), strict=True)))
    right = sum(all(column) for column in zip(*verdicts, strict=True))
    worst = made.rows[0].worst[Fraction(3, 10)]
    assert worst.value == right / 9
    assert (worst.low, worst.high) == wilson(right, 9)
    assert not worst.bound


def test_attacks_stand_from_the_weakest_effort_to_the_strongest():
    made = board(*(factory.robustness(everything, everything, attack=a) for a in (PGD, NOISE, FGSM)))
    assert [made.labels[attack] for attack in made.attacks[Fraction(3, 10)]] == ["noise", "fgsm", "pgd(steps=40)"]


@pytest.mark.parametrize("state", ["failed", "void", "missing"])
def test_a_lacking_attack_makes_the_worst_case_an_upper_bound_without_rank(state):
    lacking = {
        "failed": [factory.failed(attack=PGD)],
        "void": [factory.void(everything, everything, attack=PGD)],
        "missing": [],
    }[state]
    sound = [factory.robustness(everything, bits(0, 1), attack=a, model={"name": "b"}) for a in (FGSM, PGD)]
    made = board(factory.robustness(everything, bits(0, 1, 2), attack=FGSM), *lacking, *sound)
    first, last = made.rows
    assert (first.model, first.rank) == ("b", 1)
    assert (last.model, last.rank) == ("smallcnn", None)
    score = last.attacks[Fraction(3, 10), made.attacks[Fraction(3, 10)][1]]
    assert (score.state, score.value) == (state, None)
    worst = last.worst[Fraction(3, 10)]
    assert worst.bound
    assert worst.value == 0.3
    assert "pgd(steps=40)" in worst.note


def test_a_row_of_nothing_but_failures_is_shown():
    made = board(factory.failed(attack=PGD), factory.failed(attack=FGSM))
    assert made.rows[0].clean.state == "failed"
    assert made.rows[0].worst[Fraction(3, 10)].state == "failed"
    assert made.rows[0].rank is None


def test_a_void_cell_is_never_counted_as_robust():
    made = board(factory.robustness(everything, bits(0), attack=FGSM), factory.void(everything, everything, attack=PGD))
    assert made.rows[0].worst[Fraction(3, 10)].value == 0.1
    assert made.rows[0].attacks[Fraction(3, 10), made.attacks[Fraction(3, 10)][1]].value is None


def test_cells_of_different_weights_are_not_combined():
    made = board(
        factory.robustness(everything, bits(0), attack=FGSM, weights="a"),
        factory.robustness(everything, bits(1), attack=PGD, weights="b"),
    )
    worst = made.rows[0].worst[Fraction(3, 10)]
    assert worst.value is None
    assert "different weights" in worst.note


def test_overlapping_rows_share_a_rank():
    ranked = rank([row_with(0.1, 0.2), row_with(0.5, 0.6), row_with(0.55, 0.7)], Fraction(1, 10))
    assert [(row.rank, row.worst[Fraction(1, 10)].low) for row in ranked] == [(1, 0.55), (1, 0.5), (3, 0.1)]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), min_size=1, max_size=8), st.randoms())
def test_ranks_count_the_rows_that_are_surely_above_and_do_not_depend_on_order(intervals, random):
    rows = [row_with(low, high) for low, high in intervals]
    random.shuffle(rows)
    eps = Fraction(1, 10)
    ranked = rank(rows, eps)
    values = [row.worst[eps].value for row in ranked]
    assert values == sorted(values, reverse=True)
    for row in ranked:
        above = sum(other.worst[eps].low > row.worst[eps].high for other in ranked)
        assert row.rank == above + 1
    assert ranked[0].rank == 1


def test_seeds_become_a_mean_with_a_t_interval():
    records = [factory.robustness(everything, bits(*range(k)), seed=seed) for seed, k in enumerate((4, 5, 6))]
    worst = board(*records).rows[0].worst[Fraction(3, 10)]
    assert worst.value == pytest.approx(0.5)
    assert (worst.low, worst.high) == pytest.approx(mean_interval([0.4, 0.5, 0.6])[1:])
    assert worst.seeds == 3
    assert worst.sd == pytest.approx(0.1)
    assert score_entry(worst).note == "3 seeds, sd 10.0"
    assert board(*records).rows[0].rank == 1


def test_a_failed_seed_is_noted_and_removes_the_rank():
    made = board(*(factory.robustness(everything, bits(0), seed=s) for s in (0, 1)), factory.failed(seed=2))
    worst = made.rows[0].worst[Fraction(3, 10)]
    assert worst.value == pytest.approx(0.1)
    assert "2 of 3 seeds" in worst.note
    assert "failed" in worst.note
    assert made.rows[0].rank is None


def test_t_intervals_stay_inside_zero_and_one():
    score = over_seeds([Score("ok", value, 0, 1, 10) for value in (0.0, 1.0)])
    assert (score.low, score.high) == (0.0, 1.0)


def test_seeds_that_agree_have_the_interval_of_one():
    """Student's t would be of width 0, and every difference certain."""
    one = board(factory.robustness(everything, bits(0, 1))).rows[0].worst[Fraction(3, 10)]
    same = board(*(factory.robustness(everything, bits(0, 1), seed=s) for s in (0, 1))).rows[0].worst[Fraction(3, 10)]
    assert (same.value, same.low, same.high, same.seeds) == (one.value, one.low, one.high, 2)
    assert same.low < same.value < same.high


def test_data_sets_and_norms_have_boards_of_their_own_and_settings_rows_of_their_own():
    made = boards(
        Results(
            Path("results"),
            (
                factory.robustness(everything, everything),
                factory.robustness(everything, everything, norm="l2"),
                factory.robustness(everything, everything, data="digits"),
                factory.robustness(everything, everything, training=factory.TRAINING | {"epochs": 3}),
            ),
            (),
        )
    )
    assert [(b.data, b.norm, len(b.rows)) for b in made] == [
        ("mnist", "linf", 2),
        ("mnist", "l2", 1),
        ("digits", "linf", 1),
    ]
    assert sorted(row.extra for row in made[0].rows) == ["training.epochs 10", "training.epochs 3"]


def test_epsilons_are_ordered_as_fractions():
    made = board(*(factory.robustness(everything, everything, eps=eps) for eps in ("16/255", "8/255", "0.3")))
    assert [spelled for _, spelled in made.eps] == ["8/255", "16/255", "0.3"]


def test_two_attacks_that_look_alike_keep_their_own_scores():
    """The number 1 and the text "1" have the same label."""
    number, text = {"name": "mine.py:Own", "loss": 1}, {"name": "mine.py:Own", "loss": "1"}
    records = [
        factory.robustness(everything, bits(*right), attack=attack)
        for attack, right in ((number, (0, 1)), (text, (1, 2, 3)))
    ]
    made = board(*records)
    (row,) = made.rows
    values = {made.labels[attack]: score.value for (_, attack), score in row.attacks.items()}
    assert values == {"mine.py:Own(loss=1)": 0.2, "mine.py:Own(loss=1) (2)": 0.3}
    assert row.worst[Fraction(3, 10)].value == 0.1
    table = leaderboard_table(made)
    assert [column.title for column in table.columns][-3:-1] == list(values)
    assert [entry.text for entry in table.rows[0]][-3:] == ["20.0 %", "30.0 %", "10.0 %"]
