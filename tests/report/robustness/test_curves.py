"""Nested and bisected curves over ε, and attacks without early stopping, count as attacks of their own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import factory
import numpy as np
import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.report.build import report
from epsbench.harness.report.content import Content
from epsbench.harness.report.gates.compare import compare
from epsbench.harness.report.results.loading import Results, load_results
from epsbench.harness.report.results.names import Names
from epsbench.harness.report.robustness.leaderboard import Board, boards
from epsbench.harness.report.robustness.movement import movement_tables
from epsbench.harness.report.robustness.tables import board_caption

N = 1000
CLEAN = np.ones(N, dtype=bool)
PGD = {"name": "pgd", "steps": 40}
EPS = ["0.1", "0.2", "0.3"]
BISECT, NESTED = ({"curve": curve, "curve_eps": EPS} for curve in ("bisect", "nested"))
LARGEST = Fraction(3, 10)


def right(count: int) -> np.ndarray:
    return np.arange(N) < count


def pgd(count: int, eps: str = "0.3", gradients: float = 40.0, **axes):
    record = factory.robustness(CLEAN, right(count), attack=axes.pop("attack", PGD), eps=eps, **axes)
    return record.model_copy(update={"cost": record.cost | {"gradients_per_image": gradients}})


def results(*records) -> Results:
    return Results(Path("results"), records, ())


def board(*records) -> Board:
    (made,) = boards(results(*records))
    return made


def test_records_that_differ_only_in_curve_or_early_stop_stand_side_by_side():
    made = board(pgd(500), pgd(490, **BISECT), pgd(480, **NESTED), pgd(510, early_stop=False))
    (row,) = made.rows
    assert {label: round(N * row.attacks[LARGEST, attack].value) for attack, label in made.labels.items()} == {
        "pgd(steps=40)": 500,
        "pgd(steps=40, bisect)": 490,
        "pgd(steps=40, nested)": 480,
        "pgd(steps=40, no early stop)": 510,
    }
    assert row.worst[LARGEST].value == 0.48
    assert row.rank == 1
    assert row.extra == ""


def test_every_label_of_a_folder_is_another():
    cells = [
        factory.robustness_cell(attack=PGD, **axes)
        for axes in (
            {},
            BISECT,
            NESTED,
            BISECT | {"curve_eps": EPS[1:]},
            {"early_stop": False},
            NESTED | {"early_stop": False},
        )
    ]
    labels = [Names(cells).attack(cell) for cell in cells]
    assert len(set(labels)) == len(cells)
    assert labels[1] == "pgd(steps=40, bisect over ε 0.1 0.2 0.3)"
    assert labels[-1] == "pgd(steps=40, nested, no early stop)"


@pytest.mark.parametrize(
    ("axes", "label"),
    [({}, "fgsm"), ({"early_stop": False}, "fgsm"), (BISECT, "fgsm(bisect)"), ({"curve": "\x1b[1m"}, "fgsm(\\x1b[1m)")],
)
def test_a_label_says_what_is_not_the_default_and_not_what_all_cells_share(axes, label):
    cell = factory.robustness_cell(attack={"name": "fgsm", "steps": 1}, **axes)
    assert Names([cell]).attack(cell) == label


def test_a_number_of_steps_that_the_norm_decides_is_not_shown():
    by_norm, more = ({**pgd(500).cell, "attack": {"name": "fmn", "steps": steps}} for steps in (None, 100))
    assert [Names([by_norm, more]).attack(cell) for cell in (by_norm, more)] == ["fmn", "fmn(steps=100)"]


def test_records_from_before_there_were_curves_are_each():
    old = pgd(500)
    old = factory.of_cell(old, {k: v for k, v in old.cell.items() if k not in ("curve", "early_stop")})
    assert list(board(old, pgd(490, eps="0.2")).labels.values()) == ["pgd(steps=40)"]


@pytest.mark.parametrize("other", [BISECT, {"early_stop": False}])
def test_one_kind_of_curve_is_enough_for_the_worst_case(other):
    made = board(pgd(500), pgd(400, model={"name": "b"}), pgd(390, model={"name": "b"}, **other))
    assert [(row.rank, row.worst[LARGEST].bound) for row in made.rows] == [(1, False), (2, False)]


def test_a_curve_that_failed_is_noted():
    made = board(pgd(500), factory.failed(attack=PGD, eps="0.3", **BISECT))
    assert made.rows[0].worst[LARGEST].note == "without pgd(steps=40, bisect) (failed)"


def test_the_caption_explains_the_curves_that_there_are():
    assert "Bisect:" not in board_caption(board(pgd(500)))
    output = board_caption(board(pgd(500), pgd(500, **BISECT)))
    assert "counts as robust at every smaller ε" in output
    assert "Nested:" not in output


def test_the_effect_of_the_kind_of_curve():
    records = [
        *(pgd(count, eps, 40 * count / N) for count, eps in zip((900, 700, 500), EPS, strict=True)),
        *(pgd(count, eps, 10, **BISECT) for count, eps in zip((899, 700, 510), EPS, strict=True)),
        *(pgd(count, eps, 35 * count / N, **NESTED) for count, eps in zip((900, 690), EPS, strict=False)),
    ]
    kept = results(*records)
    (table,) = movement_tables(boards(kept), kept)
    assert table.title == "Effect of the kind of ε curve on mnist, L∞"
    assert [[entry.plain for entry in row] for row in table.rows] == [
        ["smallcnn", "pgd(steps=40, bisect)", "-0.10", "0", "+1.00", "84 → 30 ÷ 2.8"],
        ["smallcnn", "pgd(steps=40, nested)", "0", "-1.00", "–", "64 → 55.6 ÷ 1.15"],
    ]


def test_seeds_are_averaged_and_other_weights_not_compared():
    records = [pgd(500 + 10 * seed, seed=seed, **axes) for seed in range(2) for axes in ({}, BISECT)]
    shifted = [pgd(100, model={"name": "b"}), pgd(900, model={"name": "b"}, weights="other", **BISECT)]
    kept = results(records[0], pgd(480, seed=0, **BISECT), *records[2:], *shifted)
    (table,) = movement_tables(boards(kept), kept)
    assert [(row[0].text, row[2].text) for row in table.rows] == [("smallcnn", "-1.00")]


def test_there_is_no_such_table_for_one_kind_of_curve():
    kept = results(pgd(500, **BISECT), pgd(500, attack={"name": "fgsm"}))
    assert movement_tables(boards(kept), kept) == []


@pytest.mark.parametrize("fmt", ["text", "markdown", "html"])
def test_every_format_shows_the_effect_of_curves(tmp_path, fmt):
    factory.write(tmp_path, *(pgd(500, eps, **axes) for eps in EPS for axes in ({}, BISECT)))
    output = report(tmp_path, fmt, tmp_path / "out")
    assert "Effect of the kind of ε curve" in output
    assert "Bisect: bisection finds the smallest ε" in " ".join(output.split())


def test_clean_verdicts_are_compared_once_for_a_model_whatever_the_curve(tmp_path):
    a, b = (factory.write(tmp_path / name, pgd(500), pgd(490, **BISECT)) for name in "ab")
    _, output = compare(a, b)
    assert "3 tests" in output
    assert "pgd(steps=40, bisect) L∞ ε 0.3" in output


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"curve": 1}, "cell.curve: is not a string"),
        ({"curve_eps": "0.1"}, "not a list"),
        ({"early_stop": 1}, "true or false"),
    ],
)
def test_a_bad_curve_is_named(tmp_path, cell, message):
    record = pgd(500)
    factory.write(tmp_path, factory.of_cell(record, record.cell | cell))
    with pytest.raises(InputError, match=message):
        load_results(tmp_path)


FGSM, OVERFITTED = {"name": "fgsm", "steps": 1}, {"name": "fgsm-loss"}


def one_step(fgsm: int, many: int, eps: str = "0.3", **axes):
    return [pgd(fgsm, eps, 1.0, attack=FGSM, **axes), pgd(many, eps, **axes)]


def read(*records) -> str:
    return " ".join(Content(results(*records)).reading)


def test_the_reading_names_a_model_that_resists_one_step_only():
    output = read(
        *one_step(950, 0, defense=OVERFITTED), *one_step(940, 190, "0.1", defense=OVERFITTED), *one_step(160, 0)
    )
    assert "smallcnn + fgsm-loss keeps 95.0 % under fgsm but 0.0 % under pgd(steps=40) at ε = 0.3." in output
    assert "catastrophic overfitting" in output
    assert output.count(" under fgsm but ") == 1


@pytest.mark.parametrize(
    "records",
    [
        one_step(950, 920),
        one_step(160, 0),
        one_step(750, 370),
        one_step(950, 0)[:1],
        [*one_step(950, 0)[:1], factory.void(CLEAN, ~CLEAN, attack=PGD, eps="0.3")],
        [factory.robustness(CLEAN, CLEAN, attack={"name": "noise"}), *one_step(950, 0)[1:]],
    ],
)
def test_the_reading_is_silent_where_one_step_and_many_do_not_differ_that_much(records):
    output = read(*records)
    assert "not several" not in output
    assert "overfitting" not in output


def test_a_model_that_was_trained_on_no_attack_has_not_overfitted_to_one():
    output = read(*one_step(950, 0))
    assert "keeps 95.0 % under fgsm but 0.0 %" in output
    assert "is not robust." in output
    assert "overfitting" not in output


def test_rows_that_share_the_last_place_are_named_together():
    output = read(pgd(900), pgd(0, model={"name": "b"}), pgd(0, model={"name": "c"}))
    assert "b and c share the last rank." in output
