"""The figures of chance, of clean against robust accuracy, and of the parts of an ensemble."""

from __future__ import annotations

from pathlib import Path

import factory
import numpy as np

from epsbench.harness.report.content import Content
from epsbench.harness.report.drawing.style import LIGHT, text
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness import figures
from epsbench.harness.report.robustness.illustrations import robustness_figures
from epsbench.harness.report.robustness.part_figures import ensembles
from epsbench.harness.report.robustness.tradeoff import tradeoff_rows

REFERENCE = Path(__file__).parents[3] / "results" / "reference" / "mnist-autoattack"
CLEAN = np.arange(100) < 95


def test_the_reference_run_has_the_figures():
    [board] = Content(load_results(REFERENCE)).boards
    titles = [figure.title for figure in robustness_figures([board])]
    assert "Clean against robust accuracy on mnist, L∞ ε = 0.3" in titles
    assert "What each part of autoattack adds on mnist, L∞ ε = 0.3" in titles
    [(attack, records)] = list(ensembles(board))
    assert board.labels[attack] == "autoattack"
    for row in board.rows:
        # The last part leaves what the leaderboard says.
        assert records[row.label].parts[-1].robust_accuracy.value == row.attacks[board.ranked[0], attack].value


def test_one_model_has_no_tradeoff(tmp_path):
    [board] = Content(load_results(factory.write(tmp_path, factory.robustness(CLEAN, CLEAN)))).boards
    assert tradeoff_rows(board) == []


def test_the_chance_line_is_that_of_the_data(tmp_path):
    records = [factory.robustness(CLEAN, CLEAN, data=data) for data in ("cifar10", "cifar100")]
    own = factory.robustness(CLEAN, CLEAN, data={"name": "npz", "path": "mine.npz", "content": "abc"})
    boards = Content(load_results(factory.write(tmp_path, *records, own))).boards
    by_data = {board.data: board for board in boards}
    chances = {data: figures._chance(board) for data, board in by_data.items()}
    assert chances == {"cifar10": 0.1, "cifar100": 0.01, "mine.npz (abc)": None}
    ten, hundred = by_data["cifar10"], by_data["cifar100"]
    assert figures.accuracy(ten, ten.rows, LIGHT) != figures.accuracy(hundred, hundred.rows, LIGHT)


def test_a_character_that_the_font_lacks_is_shown_by_its_number():
    assert text("a 模 $x$ ε") == r"a U+6A21 \$x\$ ε"
