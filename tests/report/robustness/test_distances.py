"""Smallest distances in a report: their quantiles, and verdicts at radii that were not measured."""

from __future__ import annotations

from fractions import Fraction

import factory
import numpy as np
import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.records import Distances, read_record, write_record
from epsbench.harness.records.predictions import Answers, Predictions
from epsbench.harness.report.build import report
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness.distances import curves, distances_table, measured, only_at

CLEAN = np.array([True] * 9 + [False])
DISTANCES = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, np.inf, 0.0], dtype=np.float32)
DDN = {"name": "ddn", "steps": 100, "gamma": 0.05}


@pytest.fixture
def folder(tmp_path):
    for eps in ("0.1", "0.2"):
        robust = CLEAN & (float(eps) + 1e-6 < DISTANCES)
        record = factory.robustness(CLEAN, robust, attack=DDN, norm="l2", eps=eps)
        write_record(tmp_path, record.model_copy(update={"distances": Distances.pack(DISTANCES)}))
    return tmp_path


def test_distances_come_back_from_a_record_as_they_were_and_damaged_ones_are_refused(folder):
    path = next((folder / "cells").glob("*.json"))
    record = read_record(path)
    np.testing.assert_array_equal(record.distances.unpack(), DISTANCES)
    assert record.metrics["robust_accuracy"].value == pytest.approx((CLEAN & record.verdicts.unpack()[1]).mean())
    wrong = record.model_copy(update={"distances": Distances(n=9, values=record.distances.values)})
    write_record(folder, wrong)
    with pytest.raises(InputError, match="10 packed distances where 9 are promised"):
        read_record(path)
    negative = Distances.pack(np.array([-1.0], dtype=np.float32))
    with pytest.raises(ValueError, match="negative"):
        negative.unpack()


def test_the_table_has_one_line_a_run_and_measured_quantiles(folder):
    results = load_results(folder)
    (run,) = measured(results)
    assert run.distances.tolist() == sorted(DISTANCES[:9].tolist())
    table = distances_table(results)
    assert len(table.rows) == 1
    titles = [column.title for column in table.columns]
    line = {title: entry.text for title, entry in zip(titles, table.rows[0], strict=True)}
    assert (line["10 %"], line["median"], line["90 %"], line["not reached"]) == ("0.05", "0.25", "∞", "11.1 %")


def test_a_radius_that_was_not_measured_is_answered_from_the_distances(folder):
    results = only_at(load_results(folder), [Fraction("0.2"), Fraction("0.3"), Fraction(8, 255)])
    robust = {record.cell["eps"]: record.metrics["robust_accuracy"].value for record in results.robustness}
    assert robust == {"0.2": 0.5, "0.3": pytest.approx(0.3), "8/255": 0.9}
    text = report(folder, "markdown", at_eps=[Fraction("0.3")])
    assert "30.0" in text
    assert "| 0.3 |" in text
    assert "0.1 |" not in text
    assert not (folder / "report.html").exists()


def test_adversarial_classes_are_those_at_the_radius(tmp_path):
    """Within ε the class of the nearest image that fools; beyond it that of the image. None: not all are known."""
    clean_class = np.where(CLEAN, 3, 4)
    ever = np.where(CLEAN & np.isfinite(DISTANCES) & (DISTANCES < 0.31), 7, clean_class)
    for eps, fooled in (("0.1", 7 * (DISTANCES < 0.11)), ("0.3", ever)):
        adversarial = np.where((fooled == 7) & CLEAN, 7, clean_class)
        record = factory.robustness(CLEAN, CLEAN & (adversarial == 3), attack=DDN, norm="l2", eps=eps)
        answers = Answers(np.full(10, 3), clean_class, adversarial, np.full(10, 0.5), np.full(10, 0.75))
        changed = {"distances": Distances.pack(DISTANCES), "predictions": Predictions.pack(answers, 10)}
        write_record(tmp_path, record.model_copy(update=changed))
    (at,) = only_at(load_results(tmp_path), [Fraction("0.2")]).robustness
    answers = at.predictions.unpack()
    inside = CLEAN & (DISTANCES < 0.21)
    assert answers.adversarial.tolist() == np.where(inside, 7, clean_class).tolist()
    assert np.round(answers.adversarial_confidence, 1).tolist() == np.where(inside | ~CLEAN, 0.7, 0.5).tolist()
    (beyond,) = only_at(load_results(tmp_path), [Fraction("0.4")]).robustness
    assert beyond.predictions is None
    assert report(tmp_path, "markdown", at_eps=[Fraction("0.4")])


def test_a_radius_that_nothing_answers_is_named(tmp_path):
    write_record(tmp_path, factory.robustness(CLEAN, CLEAN, eps="0.1"))
    with pytest.raises(InputError, match=r"no record answers at 0.25; .* such as ddn"):
        report(tmp_path, at_eps=[Fraction("0.25")])


def test_the_line_of_the_figure_falls_at_every_distance(folder):
    ((label, distances, heights),) = curves(measured(load_results(folder)))
    assert "ddn" in label
    assert distances[:2] == [0.0, pytest.approx(0.05)]
    assert heights == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert "Robust accuracy against the distance on mnist, L2" in report(folder, "html")
