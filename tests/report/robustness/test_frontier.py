"""Robust accuracy against training time: the frontier, its figure, and the table of training cost."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import factory
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.report.content import Content
from epsbench.harness.report.drawing.style import DARK, LIGHT
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.robustness.frontier import Point, draw, frontiers, pareto
from epsbench.harness.report.robustness.illustrations import robustness_figures
from epsbench.harness.report.robustness.leaderboard import boards
from epsbench.harness.report.robustness.training_cost import training_table

N = 40
CLEAN = np.ones(N, dtype=bool)


def point(seconds: float, accuracy: float, bound: bool = False) -> Point:
    return Point("m", True, seconds, 0.0, accuracy, 0.0, bound)


def trained(name: str, k: int, seconds: float | None, device: str = "H200", **axes):
    defense = {"name": name, "eps": "0.3"} if name != "none" else {"name": "none"}
    record = factory.robustness(CLEAN, np.arange(N) < k, defense=defense, **axes)
    return record.model_copy(
        update={"training": record.training | {"seconds": seconds}, "cost": record.cost | {"device": device}}
    )


def results(*records) -> Results:
    return Results(Path(), records, ())


@given(st.lists(st.builds(point, st.integers(1, 9), st.integers(0, 9), st.booleans()), max_size=12))
def test_no_other_model_beats_one_on_the_frontier(points):
    front = pareto(points)
    sound = [one for one in points if not one.bound]
    unbeaten = {
        (one.seconds, one.accuracy)
        for one in sound
        if not any(
            other.seconds <= one.seconds
            and other.accuracy >= one.accuracy
            and (other.seconds, other.accuracy) != (one.seconds, one.accuracy)
            for other in sound
        )
    }
    assert {(one.seconds, one.accuracy) for one in front} == unbeaten
    assert [one.seconds for one in front] == sorted({one.seconds for one in front})
    assert [one.accuracy for one in front] == sorted({one.accuracy for one in front})


def test_a_point_is_the_mean_over_seeds_of_seconds_and_worst_case():
    seeds = [trained("trades", k, s, seed=seed) for seed, (k, s) in enumerate(((20, 90), (24, 110)))]
    (board,) = boards(results(trained("none", 0, 10), *seeds, trained("n-fgsm", 18, 30)))
    (points,) = frontiers(board).values()
    by_label = {one.label: one for one in points}
    assert set(by_label) == {"undefended", "trades", "n-fgsm"}
    assert (by_label["trades"].seconds, by_label["trades"].accuracy) == pytest.approx((100, 0.55))
    assert (by_label["trades"].seconds_sd, by_label["trades"].accuracy_sd) == pytest.approx((200**0.5, 0.05 * 2**0.5))
    assert [one.label for one in pareto(points)] == ["undefended", "n-fgsm", "trades"]


@pytest.mark.parametrize(
    "records",
    [
        (trained("none", 0, 10), trained("trades", 20, 100)),
        (trained("n-fgsm", 18, None), trained("trades", 20, 100)),
        (trained("n-fgsm", 18, 30, "a CPU"), trained("trades", 20, 100)),
        (trained("n-fgsm", 18, 30, eps="0.3"), trained("trades", 20, 100, eps="0.2")),
    ],
    ids=["one defense", "no seconds", "two devices", "no ε in common"],
)
def test_there_is_no_frontier_of_fewer_than_two_defenses(records):
    assert frontiers(boards(results(*records))[0]) == {}


def test_a_bound_is_no_part_of_the_frontier():
    weak = trained("n-fgsm", 39, 30, attack={"name": "fgsm", "steps": 1})
    attacks = ({"name": "fgsm", "steps": 1}, {"name": "pgd", "steps": 40})
    sound = [trained(name, 20, 100, attack=a) for name in ("trades", "pgd-batch") for a in attacks]
    (points,) = frontiers(boards(results(weak, *sound))[0]).values()
    assert [one.bound for one in points if one.label == "n-fgsm"] == [True]
    assert len(pareto(points)) == 1
    assert pareto(points)[0].accuracy == 0.5


@pytest.mark.parametrize("seconds", [(10, 30, 100), (80, 90, 100), (50, 50, 50)])
def test_it_is_drawn_in_both_themes(seconds):
    models = list(zip(("none", "n$fgsm", "trades"), (0, 18, 20), seconds, strict=True))
    made = results(*(trained(name, k, s, seed=seed) for seed in (0, 1) for name, k, s in models))
    (board,) = boards(made)
    drawn = [draw(board, *frontiers(board).values(), theme=theme) for theme in (LIGHT, DARK)]
    assert all(ElementTree.fromstring(svg).tag.endswith("svg") for svg in drawn)
    assert drawn[0] != drawn[1]
    titles = [figure.title for figure in robustness_figures(boards(made))]
    assert "Robust accuracy against training time on mnist, L∞ ε = 0.3" in titles


def test_what_trainings_cost_beside_the_undefended_one():
    made = results(trained("none", 0, 20), trained("n-fgsm", 18, 30), trained("trades", 20, 240))
    table = training_table(boards(made))
    shown = {column.title: [row[index].text for row in table.rows] for index, column in enumerate(table.columns)}
    assert shown["defense"] == ["undefended", "n-fgsm", "trades"]
    assert shown["an epoch"] == ["2 s", "3 s", "24 s"]
    assert shown["× undefended"] == ["1 ×", "1.5 ×", "12 ×"]
    assert "model smallcnn" in table.caption
    assert table in Content(made).tables


def test_times_of_another_device_are_no_reference():
    table = training_table(boards(results(trained("none", 0, 20, "a CPU"), trained("trades", 20, 240))))
    shown = {column.title: [row[index].text for row in table.rows] for index, column in enumerate(table.columns)}
    assert shown["× undefended"] == ["1 ×", "–"]
    assert shown["device"] == ["a CPU", "H200"]


def test_one_training_has_nothing_to_be_compared_with():
    assert training_table(boards(results(trained("none", 0, 20)))) is None
    assert training_table(boards(results(trained("none", 0, None), trained("trades", 3, None)))) is None
