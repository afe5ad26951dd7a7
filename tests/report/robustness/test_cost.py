"""What attacks cost: the table, and the figure of robust accuracy against gradients."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import factory
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.lines import Line2D

from epsbench.harness.records import Record
from epsbench.harness.report.build import report
from epsbench.harness.report.content import Content
from epsbench.harness.report.drawing.style import DARK, LIGHT, figure, legend, svg
from epsbench.harness.report.results.loading import Results, load_results
from epsbench.harness.report.robustness import figures
from epsbench.harness.report.robustness.cost import cost_table, gradients
from epsbench.harness.report.robustness.illustrations import MOST_PRICES, price_figures
from epsbench.harness.report.robustness.leaderboard import boards

N = 100
CLEAN = np.ones(N, dtype=bool)
NOISE, FGSM, PGD = {"name": "noise"}, {"name": "fgsm", "steps": 1}, {"name": "pgd", "steps": 40}


def results(*records) -> Results:
    return Results(Path("results"), records, ())


def costing(attack=PGD, cost=None, **axes):
    record = factory.robustness(CLEAN, np.arange(N) < axes.pop("right", 50), attack=attack, **axes)
    return record.model_copy(update={"cost": record.cost | (cost or {})})


def columns(*records) -> dict[str, list[str]]:
    table = cost_table(results(*records))
    return {column.title: [row[index].plain for row in table.rows] for index, column in enumerate(table.columns)} | {
        "caption": [table.caption]
    }


def test_the_share_of_the_floor_is_shown_where_it_was_measured():
    shares = [costing(cost={"floor_share": share}, eps=eps) for share, eps in ((0.953, "0.1"), (0.921, "0.2"))]
    shown = columns(costing(FGSM, {"floor_share": None}), *shares)
    assert shown["of the floor"] == ["–", "93.7 % (92.1–95.3 %)"]
    assert "Of the floor: the shortest time" in shown["caption"][0]
    assert "of the floor" not in columns(costing(FGSM), costing())


def test_compilation_is_shown_where_there_was_any():
    assert "compile" not in columns(costing(FGSM), costing())
    shown = columns(costing(FGSM), costing(cost={"compile_seconds": 31.4}))
    assert shown["compile"] == ["–", "31 s"]


def test_precision_and_form_stand_in_the_caption_or_line_by_line():
    form = {"form": "folded, channels-last"}
    shown = columns(costing(FGSM, form), costing(cost=form))
    assert "precision bf16, form folded, channels-last, device NVIDIA H200" in shown["caption"][0]
    shown = columns(costing(FGSM, form), costing(cost=form), costing(cost={"form": "plain"}, eps="0.1"))
    assert shown["form"] == ["folded, channels-last", "folded, channels-last; plain"]


def test_no_early_stop_stands_in_the_caption_or_in_the_label():
    assert "is not attacked further" in columns(costing())["caption"][0]
    assert "No early stop: " in columns(costing(early_stop=False))["caption"][0]
    shown = columns(costing(), costing(early_stop=False))
    assert shown["attack"] == ["pgd(steps=40) L∞", "pgd(steps=40, no early stop) L∞"]


def test_a_curve_is_a_line_of_its_own():
    shown = columns(costing(), costing(cost={"gradients_per_image": 9.0}, curve="bisect", curve_eps=["0.3"]))
    assert dict(zip(shown["attack"], shown["gradients/image"], strict=True)) == {
        "pgd(steps=40) L∞": "40",
        "pgd(steps=40, bisect) L∞": "9",
    }


def test_gradients_are_means_over_seeds_of_what_was_measured():
    records = [costing(seed=seed, cost={"gradients_per_image": count}) for seed, count in ((0, 10.0), (1, 20.0))]
    (board,) = boards(results(*records, factory.failed(attack=PGD, seed=2), costing(FGSM)))
    taken = {(eps, board.labels[attack]): count for (eps, attack), count in gradients(board.rows[0]).items()}
    assert taken == {(Fraction(3, 10), "pgd(steps=40)"): 15.0, (Fraction(3, 10), "fgsm"): 1.0}


def prices(*records):
    return list(price_figures(boards(results(*records))))


def test_a_figure_for_every_model_with_attacks_to_choose_from():
    records = [
        costing(attack, eps=eps, right=90 - 20 * k, model={"name": "a$b$_^{"})
        for k, attack in enumerate((NOISE, FGSM, PGD))
        for eps in ("0.1", "0.2")
    ]
    (drawn,) = prices(*records, costing(model={"name": "alone"}))
    assert drawn.title == "Robust accuracy against gradients on mnist, L∞: a$b$_^{"
    assert drawn.light != drawn.dark
    for image in (drawn.light, drawn.dark):
        assert ElementTree.fromstring(image).tag.endswith("svg")
    assert prices(costing(NOISE), costing({"name": "gaussian"})) == []


def test_failed_attacks_and_many_models_and_epsilons():
    records = [
        costing(attack, eps=f"{k}/255", model={"name": f"m{m}"})
        for m in range(MOST_PRICES + 2)
        for k in (range(1, 20) if m == 0 else (8,))
        for attack in (FGSM, PGD)
    ]
    bad = [factory.failed(attack=PGD, eps="0.5", model={"name": "m0"}), factory.failed(attack=PGD, model={"name": "x"})]
    assert len(prices(*records, *bad)) == MOST_PRICES


@given(st.sets(st.fractions(0, 1), min_size=1, max_size=40).map(sorted))
def test_of_many_epsilons_some_are_drawn_with_the_first_and_the_last(eps):
    chosen = figures._some(eps, figures.MOST_EPS)
    assert chosen[0] == eps[0]
    assert chosen[-1] == eps[-1]
    assert len(chosen) == len(set(chosen)) == min(len(eps), figures.MOST_EPS)


@pytest.mark.parametrize("names", [["a"], ["pgd(steps=100, no early stop)"] * 7, ["x" * 200, "y"]])
def test_a_legend_is_no_wider_than_its_figure_where_it_can(names):
    drawing, _ = figure(DARK)
    legend(drawing, DARK, [Line2D([], [], label=name) for name in names])
    svg(drawing)
    (made,) = drawing.legends
    if max(map(len, names)) < 100:
        assert made.get_window_extent().width <= drawing.bbox.width


def test_names_of_epsilons_do_not_run_into_each_other():
    (board,) = boards(results(*(costing(eps=f"{k}/255") for k in (1, 2, 4, 6, 8, 10, 12, 16))))
    places, names = figures._eps_ticks(board)
    assert len(places) == len(names) == 9
    assert names[0] == "0"
    assert names[-1] == "16/255"
    assert names[1] == ""
    assert ElementTree.fromstring(figures.accuracy(board, board.rows, LIGHT)).tag.endswith("svg")


def test_the_page_shows_the_figure_beside_the_table(tmp_path):
    factory.write(tmp_path, *(costing(attack, eps=eps) for attack in (FGSM, PGD) for eps in ("0.1", "0.2")))
    page = report(tmp_path, "html")
    section = page[page.index('id="cost"') :]
    assert section.index("What an attack costs") < section.index("Robust accuracy against gradients")
    assert section.index("Robust accuracy against gradients") < section.index("Where a line is flat")


def test_gradients_are_those_that_were_measured_not_steps_times_restarts(tmp_path):
    """An attack with a loop of its own says nothing of its steps, or something wrong: what it computed counts."""

    def taking(gradients: float, **attack: object) -> Record:
        made = factory.robustness([True] * 99, [gradients < 2] * 99, attack=attack, early_stop=False)
        return made.model_copy(update={"cost": made.cost | {"gradients_per_image": gradients}})

    own, pgd = taking(70.0, name="mine.py:Own", steps=1), taking(20.0, name="pgd", steps=20)
    one = taking(1.0, name="fgsm")
    content = Content(load_results(factory.write(tmp_path, own, pgd, one)))
    assert list(content.boards[0].labels.values()) == ["fgsm", "pgd(steps=20)", "mine.py:Own"]
    assert [row[0].text for row in content.cost.rows] == ["fgsm L∞", "pgd(steps=20) L∞", "mine.py:Own L∞"]
    reading = " ".join(content.reading)
    assert "mine.py:Own with 70 gradients an image takes 1 × the time of fgsm with 1" in reading
    assert "keeps 100.0 % under fgsm but 0.0 % under" in reading


def test_a_share_of_the_floor_above_one_is_not_shown(tmp_path):
    made = factory.robustness([True] * 9, [True] * 9)
    for share, shown in ((1.186, False), (0.9, True)):
        record = made.model_copy(update={"cost": made.cost | {"floor_share": share}})
        table = Content(load_results(factory.write(tmp_path, record))).cost
        assert ("of the floor" in [column.title for column in table.columns]) == shown
        assert ("90.0 %" in [entry.text for entry in table.rows[0]]) == shown
