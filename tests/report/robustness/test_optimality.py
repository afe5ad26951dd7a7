"""The leaderboard of attacks: optimality in closed form, its ends, and which records it is made from."""

from __future__ import annotations

import factory
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from epsbench.harness.records import Distances, Record
from epsbench.harness.report.build import report
from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness.attack_board import attack_figures, curves, steps
from epsbench.harness.report.robustness.optimality import optimality, standings

distance_arrays = arrays(np.float64, 12, elements=st.one_of(st.floats(0.0, 1.0), st.just(np.inf)))


def test_a_line_of_distances_has_the_closed_form():
    """Distances k/n, and an attack that needs a times as much: its area is known in closed form."""
    n = 2000
    best = np.arange(1, n + 1) / n
    # ∫ of max(0, 1 − t/a) over [0, 1] is 1 − 1/(2a) for a ≥ 1; the best has 1/2, and nothing has 1.
    for factor in (1.0, 1.5, 2.0, 4.0):
        expected = (1 - (1 - 1 / (2 * factor))) / (1 - 1 / 2)
        assert optimality(factor * best, best) == pytest.approx(expected, abs=1e-3)


def test_clean_errors_count_neither_for_nor_against_an_attack():
    best = np.array([0.0, 0.0, 0.2, 0.4])
    twice = np.array([0.0, 0.0, 0.4, 0.8])
    # Largest 0.4: nothing 0.2, the best (0.2 + 0.4) / 4, the other (0.4 + 0.4) / 4.
    assert optimality(best, best) == 1
    assert optimality(twice, best) == pytest.approx((0.2 - 0.2) / (0.2 - 0.15))
    assert optimality(np.array([0.0, 0.0, 0.3, 0.8]), best) == pytest.approx((0.2 - 0.175) / (0.2 - 0.15))


@given(distance_arrays, distance_arrays)
def test_it_lies_between_finding_nothing_and_the_best(one, other):
    one = np.where(other == 0, 0.0, one)
    other = np.where(one == 0, 0.0, other)  # the same images are misclassified without an attack
    best = np.minimum(one, other)
    for grid in ((), (0.25, 0.5, 1.0)):
        values = [optimality(each, best, grid) for each in (one, other, best, np.where(best > 0, np.inf, 0.0))]
        if values[2] is None:
            assert values == [None] * 4
            continue
        assert all(-1e-3 <= value <= 1 + 1e-3 for value in values)
        assert values[2] == pytest.approx(1)
        assert values[3] == pytest.approx(0, abs=1e-3)


def test_at_one_radius_it_is_the_share_of_successes_of_the_best():
    best = np.array([0.0, 0.1, 0.1, 0.1, np.inf])
    half = np.array([0.0, 0.1, np.inf, np.inf, np.inf])
    assert optimality(half, best, (0.1,)) == pytest.approx(1 / 3)


def test_without_any_success_there_is_no_optimality():
    nothing = np.array([0.0, np.inf])
    assert optimality(nothing, nothing) is None
    assert optimality(nothing, nothing, (0.1,)) is None


CLEAN = np.array([True] * 9 + [False])
NEAR = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, np.inf, 0.0], dtype=np.float32)
FAR = np.minimum(2 * NEAR, np.inf).astype(np.float32)
COST = {"attacked": 9, "forwards": 900, "backwards": 900, "gradients_per_image": 100.0, "seconds": 1.8}


def nearest(name: str, distances: np.ndarray, **axes: object) -> list[Record]:
    made = []
    for eps in ("0.1", "0.2"):
        robust = CLEAN & (distances > float(eps) + 1e-6)
        record = factory.robustness(CLEAN, robust, attack={"name": name, "steps": 100}, norm="l2", eps=eps, **axes)
        made.append(record.model_copy(update={"distances": Distances.pack(distances), "cost": COST}))
    return made


def on_grid(name: str, distances: np.ndarray, **axes: object) -> list[Record]:
    cost = COST | {"forwards": 360, "backwards": 90, "gradients_per_image": 10.0, "seconds": 0.9}
    return [
        factory.robustness(
            CLEAN, CLEAN & (distances > float(eps) + 1e-6), attack={"name": name, "steps": 10}, norm="l2", eps=eps,
            **axes,
        ).model_copy(update={"cost": cost})
        for eps in ("0.1", "0.2")
    ]  # fmt: skip


def table_of(folder):
    content = Content(load_results(folder))
    (table,) = content.attacks
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, (entry.text for entry in row), strict=True)) for row in table.rows]


def test_distances_and_grids_of_eps_are_compared_and_their_cost_is_that_of_all_eps(tmp_path):
    factory.write(tmp_path, *nearest("ddn", NEAR), *on_grid("pgd", FAR), *on_grid("fgsm", NEAR))
    rows = {row["attack"].split("(")[0]: row for row in table_of(tmp_path)}
    assert [rows[name]["optimality"] for name in ("ddn", "fgsm")] == ["1.000", "1.000"]
    # At 0.1 and 0.2 the best leaves 7 and 5 of 10, and pgd 8 and 7; without an attack there are 9.
    best, pgd, nothing = 0.1 * (0.45 + 0.7 + 0.25), 0.1 * (0.45 + 0.8 + 0.35), 0.2 * 0.9
    assert float(rows["pgd"]["optimality"]) == pytest.approx((nothing - pgd) / (nothing - best), abs=1e-3)
    assert (rows["ddn"]["measured at"], rows["pgd"]["measured at"]) == ("every distance", "2 ε")
    assert (rows["ddn"]["gradients/image"], rows["pgd"]["gradients/image"]) == ("100", "20")
    assert (rows["ddn"]["passes/image"], rows["pgd"]["passes/image"]) == ("0", "60")
    assert (rows["ddn"]["time/image"], rows["pgd"]["time/image"]) == ("0.2 s", "0.2 s")


def test_the_global_value_is_the_mean_over_models_and_says_over_how_many(tmp_path):
    other = {"model": {"name": "resnet18"}}
    records = [
        *nearest("ddn", NEAR),
        *nearest("fmn", FAR),
        *nearest("ddn", FAR, **other),
        *nearest("fmn", NEAR, **other),
    ]
    factory.write(tmp_path, *records, *nearest("deepfool", FAR, **other))
    (board,) = Content(load_results(tmp_path)).boards
    made = {each.label.split("(")[0]: each for each in standings(board)}
    assert sorted(local.optimality for local in made["ddn"].local.values())[-1] == 1
    assert made["ddn"].optimality == pytest.approx(made["fmn"].optimality)
    rows = {row["attack"].split("(")[0]: row for row in table_of(tmp_path)}
    assert (rows["ddn"]["models"], rows["deepfool"]["models"]) == ("2 of 2", "1 of 2")


def test_void_cells_and_other_weights_do_not_count(tmp_path):
    one, two = nearest("ddn", NEAR), nearest("fmn", FAR, weights="ff" * 32)
    factory.write(tmp_path, *one, *two)
    assert Content(load_results(tmp_path)).attacks == []
    factory.write(tmp_path / "void", *one, *(r.model_copy(update={"status": "void"}) for r in nearest("fmn", FAR)))
    assert Content(load_results(tmp_path / "void")).attacks == []


def test_lines_end_where_the_last_image_falls_and_have_few_points():
    places, heights = steps(NEAR.astype(float))
    assert (places[0], heights[0], heights[-1]) == (0.0, 0.9, pytest.approx(0.1))
    assert places[1:] == pytest.approx(NEAR[:8].tolist())
    many = np.random.default_rng(0).random(10_000)
    places, heights = steps(many)
    assert len(places) < 200
    assert (places[-1], heights[-1]) == (pytest.approx(many.max()), 0.0)


def test_the_page_and_the_paper_show_it(tmp_path):
    factory.write(tmp_path, *nearest("ddn", NEAR), *on_grid("pgd", FAR))
    content = Content(load_results(tmp_path))
    figures = list(attack_figures(content.boards))
    assert [figure.title.split(" on ")[0] for figure in figures] == ["Optimality of attacks against cost",
                                                                       "Attacks against the best of all"]  # fmt: skip
    (board,) = content.boards
    assert [label for label, *_ in curves(standings(board), 0)][-1] == "best of all"
    for fmt in ("html", "markdown", "latex", "text"):
        assert "Leaderboard of attacks on mnist" in report(tmp_path, fmt)
