"""Figures and pictures: labels that do not overlap, images with the right pixels, tables of the VAE."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import factory
import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.report.drawing.curves import curves
from epsbench.harness.report.drawing.images import grid, png
from epsbench.harness.report.drawing.style import DARK, LIGHT, shortened, spread
from epsbench.harness.report.generative.likelihood import bpd_tables
from epsbench.harness.report.generative.settings import settings
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.robustness import figures
from epsbench.harness.report.robustness.leaderboard import boards
from epsbench.harness.report.robustness.pictures import MAGNIFICATIONS, magnification

N = 50
CLEAN = np.ones(N, dtype=bool)


def vae_tables(loaded: Results) -> list:
    return bpd_tables(settings(loaded))


def results(*records) -> Results:
    return Results(Path("results"), records, ())


@given(st.lists(st.floats(0, 1), max_size=12).map(sorted), st.floats(0.001, 0.08))
def test_labels_keep_their_order_and_distance_and_stay_inside(heights, gap):
    placed = spread(heights, gap, 0.0, 1.0)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(placed))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in placed)


def test_labels_apart_stay_where_they_are():
    assert spread([0.1, 0.5, 0.9], 0.1, 0, 1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.45, 0.55])


def test_accuracy_is_well_formed_in_both_themes_with_gaps_and_dollars_in_names():
    (board,) = boards(
        results(
            *(
                factory.robustness(CLEAN, np.arange(N) < 40 - 10 * k, eps=eps, model={"name": "a$b$_^{"})
                for k, eps in enumerate(("0.1", "0.2", "0.3"))
            ),
            factory.failed(eps="0.2", attack={"name": "fgsm"}),
            factory.robustness(CLEAN, CLEAN, eps="0.1", attack={"name": "fgsm"}),
        )
    )
    drawn = [figures.accuracy(board, rows, theme) for rows in figures.panels(board) for theme in (LIGHT, DARK)]
    for svg in drawn:
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert drawn[0] != drawn[1]


def test_labels_of_any_length_leave_room_for_the_axes():
    """Warnings are errors: matplotlib warns of axes that have no room."""
    long = {"name": "a network of many words " * 8}
    (board,) = boards(results(*(factory.robustness(CLEAN, CLEAN, eps=eps, model=long) for eps in ("0.1", "0.2"))))
    (rows,) = figures.panels(board)
    assert len(rows[0].label) > 100
    assert ElementTree.fromstring(figures.accuracy(board, rows, LIGHT)).tag.endswith("svg")


def test_a_long_label_loses_only_its_middle():
    assert shortened("a" * 44) == "a" * 44
    label = shortened("smallcnn + pgd-batch (training.epochs 12, training.learning_rate 0.004, precision auto)")
    assert label == "smallcnn + pgd-batch (training.ep…sion auto)"


def test_many_models_share_out_over_panels():
    records = [
        factory.robustness(CLEAN, CLEAN, model={"name": f"m{k}"}, eps=eps) for k in range(9) for eps in ("0.1", "0.2")
    ]
    (board,) = boards(results(*records))
    assert [len(rows) for rows in figures.panels(board)] == [7, 2]


@pytest.mark.parametrize("values", [[0.5], [4.0, 0.5], [1.0, 0.9, 0.8], [0.0, 0.0]])
def test_curves_of_any_length_and_range(values):
    svg = curves({"m": [("validation", values), ("training", values)]}, LIGHT, "bits per dimension")
    assert ElementTree.fromstring(svg).tag.endswith("svg")


def read(image: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(image), format="png")


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_pixels(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 4, 5)) / 255
    shown = read(png(image))
    assert shown.shape[:2] == (4, 5)
    assert shown[:, :, :channels] == pytest.approx(image.transpose(1, 2, 0), abs=1e-6)


def test_png_clips_and_refuses_other_shapes():
    assert read(png(np.array([[[-1.0, 2.0, np.nan]]])))[0, :, 0].tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="shape"):
        png(np.zeros((2, 4, 4)))


def test_grid_is_row_by_row():
    sheet = grid(np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1), 3, gap=1)
    assert sheet.shape == (1, 3, 5)
    assert sheet[0, ::2, ::2].tolist() == [[0, 1, 2], [3, 4, 0.5]]


@given(st.floats(0, 1))
def test_magnification_is_the_largest_that_fits(size):
    factor = magnification(np.array([size, -size]))
    assert factor in MAGNIFICATIONS
    assert factor == 1 or factor * size <= 0.5 + 1e-6
    larger = [m for m in MAGNIFICATIONS if m > factor]
    assert size == 0 or not larger or larger[0] * size > 0.5


def test_vae_table_ranks_by_test_bits_and_keeps_likelihoods_apart():
    other = {"name": "vae", "levels": 256}
    tables = vae_tables(
        results(
            factory.generation(0.77, z_dim=2),
            factory.generation(0.52, z_dim=20),
            factory.generation(3.1, model=other),
            factory.failed(task="generation", z_dim=5, beta=1.0, model={"name": "vae", "levels": 16}),
        )
    )
    assert [table.title for table in tables] == ["VAE on mnist, 16 grey levels", "VAE on mnist, 256 grey levels"]
    assert [row[1].text for row in tables[0].rows] == ["20", "2", "5"]
    assert tables[0].rows[0][6].plain == "0.520 [0.516, 0.524]"
    assert {entry.text for entry in tables[0].rows[2][4:9]} == {"failed"}


def test_vae_seeds_are_averaged():
    (table,) = vae_tables(results(*(factory.generation(0.5 + 0.01 * seed, seed=seed) for seed in range(3))))
    assert len(table.rows) == 1
    assert table.rows[0][3].text == "3"
    assert table.rows[0][6].text == "0.510"
