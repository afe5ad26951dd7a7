"""Several results folders as one report: each cell once, conflicts shown, suites side by side."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import factory
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.errors import InputError
from epsbench.harness.report.build import report
from epsbench.harness.report.content import Content
from epsbench.harness.report.overview import findings_table
from epsbench.harness.report.results.joining import join
from epsbench.harness.report.results.loading import Results, load_results
from epsbench.harness.report.robustness.leaderboard import boards
from epsbench.harness.report.robustness.tables import leaderboard_table

N = 40
CLEAN = np.ones(N, dtype=bool)
NOISE, FGSM, PGD = {"name": "noise"}, {"name": "fgsm", "steps": 1}, {"name": "pgd", "steps": 40}
TRADES, BATCH = ({"name": name, "eps": "0.3"} for name in ("trades", "pgd-batch"))


def right(k: int) -> np.ndarray:
    return np.arange(N) < k


def later(record, hour: int = 9):
    return record.model_copy(update={"finished": f"2026-01-02T{hour:02}:00:00+00:00"})


@pytest.fixture
def two(tmp_path):
    """Two suites that share the undefended model under PGD; the second adds a defense."""
    shared = factory.robustness(CLEAN, right(4), attack=PGD, suite="a", description="What breaks?")
    own = factory.robustness(
        CLEAN, right(9), attack=PGD, defense=TRADES, suite="b", description="What holds?", started="2026-01-02"
    )
    a = factory.write(tmp_path / "a", shared, factory.robustness(CLEAN, right(9), attack=PGD, eps="0.4", suite="a"))
    b = factory.write(tmp_path / "b", shared, own)
    return a, b


def test_a_cell_of_two_folders_stands_once_and_suites_side_by_side(two):
    loaded = load_results(*two)
    assert len(loaded.current) == 3
    assert loaded.conflicts == ()
    (board,) = boards(loaded)
    assert [row.defense for row in board.rows] == ["trades", "none"]
    assert {record.suite for row in board.rows for record in row.records} == {"a", "b"}


def test_rows_are_ranked_where_all_were_measured(two):
    (board,) = boards(load_results(*two))
    assert board.eps[-1][1] == "0.4"
    assert board.ranked == (Fraction("0.3"), "0.3")
    assert [row.rank for row in board.rows] == [1, 1]  # 9 and 4 of 40: the intervals overlap
    assert "Sorted by the worst case at ε = 0.3, the largest all share" in leaderboard_table(board).caption
    (alone,) = boards(load_results(two[0]))
    assert alone.ranked == (Fraction("0.4"), "0.4")


def test_the_same_folder_twice_is_one_folder(two):
    assert load_results(two[0], two[0].parent / "b" / ".." / "a").current == load_results(two[0]).current


def test_other_numbers_for_the_same_cell_are_a_conflict_and_the_newest_stands(tmp_path):
    old, new = (factory.robustness(CLEAN, right(k), weights=str(k)) for k in (10, 20))
    a, b = factory.write(tmp_path / "a", later(new)), factory.write(tmp_path / "b", old)
    loaded = load_results(a, b)
    assert [record.metrics["robust_accuracy"].value for record in loaded.current] == [0.5]
    (conflict,) = loaded.conflicts
    assert (conflict.shown, conflict.others) == (a, (b,))
    (row,) = findings_table(loaded).rows
    assert row[0].text == "conflict"
    assert str(b) in row[2].text
    assert "1 cell measured differently in several folders" in " ".join(Content(loaded).reading)


def test_a_cell_that_failed_in_one_folder_and_was_measured_in_another_is_measured(tmp_path):
    good = factory.robustness(CLEAN, CLEAN)
    bad = factory.of_cell(later(factory.failed()), good.cell)
    loaded = load_results(factory.write(tmp_path / "a", good), factory.write(tmp_path / "b", bad))
    assert loaded.current == (good,)
    assert loaded.conflicts == ()


@given(st.permutations(range(4)))
def test_joining_does_not_depend_on_the_order_of_folders(order):
    records = [later(factory.robustness(CLEAN, right(k)), k) for k in (3, 7)]
    records += [factory.robustness(CLEAN, CLEAN, eps="0.1"), later(records[0], 5)]
    located = [(Path(str(index)), record) for index, record in enumerate(records)]
    kept, conflicts = join([located[index] for index in order])
    assert {(folder, record.metrics["robust_accuracy"].value) for folder, record in kept} == {
        (Path("1"), 7 / N),
        (Path("2"), 1.0),
    }
    assert [(one.shown, set(one.others)) for one in conflicts] == [(Path("1"), {Path("0"), Path("3")})]


def test_models_trained_apart_have_no_worst_case_together(tmp_path):
    a = factory.write(tmp_path / "a", factory.robustness(CLEAN, right(4), attack=FGSM, weights="here"))
    b = factory.write(tmp_path / "b", factory.robustness(CLEAN, right(9), attack=PGD, weights="there"))
    (board,) = boards(load_results(a, b))
    worst = board.rows[0].worst[Fraction("0.3")]
    assert worst.value is None
    assert "one --weights" in worst.note


def test_an_attack_that_another_suite_adds_makes_an_upper_bound_without_rank(tmp_path):
    a = factory.write(tmp_path / "a", factory.robustness(CLEAN, right(30), attack=FGSM, defense=BATCH))
    b = factory.write(tmp_path / "b", *(factory.robustness(CLEAN, right(9), attack=x, defense=TRADES)
                                        for x in (FGSM, PGD)))  # fmt: skip
    (board,) = boards(load_results(a, b))
    assert [(row.defense, row.rank, row.worst[Fraction("0.3")].bound) for row in board.rows] == [
        ("trades", 1, False),
        ("pgd-batch", None, True),
    ]


def test_pictures_come_from_the_folder_of_their_record(tmp_path):
    images = np.zeros((2, 1, 4, 4), dtype=np.float32)
    arrays = {"original": images, "adversarial": images, "labels": np.arange(2), "predicted": np.arange(2)}
    arrays["fooled"] = np.ones(2, dtype=bool)
    shown = factory.robustness(CLEAN, right(9), pictures=True)
    a = factory.write(tmp_path / "a", factory.robustness(CLEAN, CLEAN, attack=NOISE))
    b = factory.write(tmp_path / "b", shown, pictures={shown.id: arrays})
    assert "Adversarial examples" in report([a, b], "html")


def test_the_description_of_every_suite_is_shown(two):
    content = Content(load_results(*two))
    assert content.title == "a and b"
    assert content.reading[:2] == ["a: What breaks?", "b: What holds?"]
    assert Content(load_results(two[0])).title == "a: What breaks?"


def test_where_the_page_goes(two, tmp_path):
    assert "report.html" not in report(two)
    assert not list(tmp_path.rglob("report.*"))
    output = report(two, out=tmp_path / "joined")
    assert str(tmp_path / "joined" / "report.html") in output
    assert "b: What holds?" in (tmp_path / "joined" / "report.md").read_text()
    report(two[0])
    assert (two[0] / "report.html").is_file()
    with pytest.raises(InputError, match="--out"):
        report(two, "csv", out=tmp_path)


@pytest.mark.parametrize("asked", [True, False])
def test_a_folder_asked_for_that_cannot_be_written_is_an_error_and_one_beside_the_records_is_not(two, tmp_path, asked):
    place = tmp_path / "taken" if asked else two[0]
    (place / "report.html").mkdir(parents=True)
    if asked:
        with pytest.raises(InputError, match=r"report\.html: cannot be written \(.*\); choose another --out"):
            report(two[0], out=place)
    else:
        assert "report.html: not written (" in report(two[0])


def test_every_folder_that_cannot_be_read_is_named(two, tmp_path):
    with pytest.raises(InputError) as caught:
        report([tmp_path / "none", two[0], tmp_path / "nowhere"])
    assert len(caught.value.messages) == 2


def test_means_over_seeds_show_their_spread_and_tie_within_their_intervals():
    def rows(defense, *shares):
        return [factory.robustness(CLEAN, right(k), defense=defense, seed=s) for s, k in enumerate(shares)]

    records = (*rows(TRADES, 20, 22, 24), *rows(BATCH, 19, 20, 21), *rows({"name": "none"}, 0, 0, 1))
    (board,) = boards(Results(Path(), records, ()))
    assert [(row.defense, row.rank) for row in board.rows] == [("trades", 1), ("pgd-batch", 1), ("none", 3)]
    table = leaderboard_table(board)
    assert table.rows[0][-1].text == "55.0 %"
    assert table.rows[0][-1].detail.startswith("±5.0 [")
    assert table.notes == ("every row is the mean over 3 seeds",)
