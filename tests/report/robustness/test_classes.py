"""Classes and calibration: confusion, accuracy by class and calibration error against counts made by hand."""

from __future__ import annotations

import factory
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsbench.harness.records import Record
from epsbench.harness.records.predictions import Answers, Predictions
from epsbench.harness.report.build import report
from epsbench.harness.report.content import Content
from epsbench.harness.report.results.class_names import all_class_names, class_name, class_names
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness.class_figures import class_figures, shown_classes
from epsbench.harness.report.robustness.classes import (
    bins,
    by_class_table,
    calibration_error,
    confusion,
    confusions,
    seen,
)
from epsbench.harness.statistics import wilson

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
CLEAN = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 0])
UNDER = np.array([0, 0, 1, 1, 1, 2, 2, 0, 0, 0])
SURE = np.linspace(0.55, 1.0, 10)


def answered(adversarial: np.ndarray, confidence: np.ndarray = SURE, **axes: object) -> Record:
    clean, robust = CLEAN == LABELS, (CLEAN == LABELS) & (adversarial == LABELS)
    record = factory.robustness(clean, robust, **axes)
    answers = Answers(LABELS, CLEAN, adversarial, SURE, confidence)
    return record.model_copy(update={"predictions": Predictions.pack(answers, 3)})


@pytest.fixture
def folder(tmp_path):
    weak = np.where(np.arange(10) == 4, 2, CLEAN)  # fools one image that the strong attack does not
    return factory.write(
        tmp_path, answered(UNDER), answered(weak, attack={"name": "fgsm"}), answered(UNDER, eps="0.1"),
    )  # fmt: skip


def of(folder):
    (model,) = seen(Content(load_results(folder)).boards)
    return model


def test_the_strongest_attack_decides_confusion_and_all_attacks_the_accuracy_of_classes(folder):
    model = of(folder)
    assert model.attack.startswith("pgd")
    assert model.confusion().tolist() == [[2, 2, 0], [0, 1, 2], [3, 0, 0]]
    assert list(confusions(model)) == [(2, 0, 1.0), (1, 2, pytest.approx(2 / 3)), (0, 1, 0.5)]
    shares = model.by_class(model.robust)
    assert [(index, value) for index, value, *_ in shares] == [(0, 0.5), (1, 0.0), (2, 0.0)]
    assert shares[0][2:] == wilson(2, 4)
    assert [value for _, value, *_ in model.by_class(model.clean)] == [1.0, pytest.approx(2 / 3), pytest.approx(2 / 3)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_confusion_counts_every_image_once(pairs):
    labels, classes = (np.array([pair[k] for pair in pairs], dtype=int) for k in range(2))
    counts = confusion(labels, classes, 4)
    assert counts.sum() == len(pairs)
    for label, other in set(pairs):
        assert counts[label, other] == pairs.count((label, other))


def test_the_calibration_error_in_closed_form():
    confidence = np.array([0.05, 0.95, 0.95, 1.0, 1.0])
    right = np.array([False, True, False, True, True])
    made = bins(confidence, right, 10)
    assert [(one.n, one.accuracy) for one in made] == [(1, 0.0), (4, 0.75)]
    # One bin of one image that is 0.05 off, one of four that is |0.75 − 0.975| off.
    assert calibration_error(made) == pytest.approx((0.05 + 4 * 0.225) / 5)
    assert calibration_error([]) == 0


@given(st.integers(0, 50), st.integers(1, 200))
def test_what_is_as_often_right_as_it_is_confident_has_no_error(seed, n):
    """Confidence k/n in a bin of its own where k of n are right."""
    k = np.random.default_rng(seed).integers(0, n + 1)
    confidence, right = np.full(n, k / n), np.arange(n) < k
    assert calibration_error(bins(confidence, right)) == pytest.approx(0, abs=1e-12)


def test_a_bin_holds_its_upper_end_and_not_its_lower():
    assert [one.n for one in bins(np.array([0.0, 0.1, 0.2, 0.2000001]), np.ones(4, dtype=bool), 10)] == [2, 1, 1]


def test_calibration_under_attack_needs_every_confidence(tmp_path):
    gaps = np.where(np.arange(10) == 3, np.nan, SURE)
    folder = factory.write(tmp_path, answered(UNDER, gaps))
    assert list(of(folder).calibration()) == ["clean"]
    # A weaker attack that judged every image serves in its place.
    weak = np.where(np.arange(10) == 4, 2, CLEAN)
    factory.write(tmp_path, answered(weak, attack={"name": "fgsm"}))
    model = of(folder)
    assert list(model.calibration()) == ["clean", "under attack"]
    assert model.calibrated.adversarial.tolist() == weak.tolist()
    assert model.confusion().tolist() == [[2, 2, 0], [0, 1, 2], [3, 0, 0]]


def test_names_come_from_the_record_or_from_the_data_that_come_along(folder):
    record = answered(UNDER, data="cifar10")
    assert all_class_names(record, 10)[3] == "cat"
    assert class_name(class_names(record), 3) == "cat"
    own = record.model_copy(update={"evaluation": {"class_names": ["a", "<b>", "c\u202e"]}})
    assert class_names(own) == all_class_names(own, 3) == ("a", "<b>", "c\\u202e")
    assert all_class_names(own, 5) == tuple("01234")
    assert all_class_names(answered(UNDER), 3) == ("0", "1", "2")
    assert class_names(answered(UNDER)) == ()


def test_records_from_before_predictions_were_kept_leave_the_section_out(tmp_path):
    factory.write(tmp_path, factory.robustness(CLEAN == LABELS, UNDER == LABELS))
    content = Content(load_results(tmp_path))
    assert content.classes is None
    assert "Classes and calibration" not in report(tmp_path, "html")


def test_every_format_shows_them(folder):
    for fmt in ("text", "markdown", "html", "latex"):
        shown = report(folder, fmt)
        assert "Classes and calibration under attack" in shown
        assert "100.0" in shown
    assert "Classes of smallcnn on mnist" in report(folder, "markdown")
    titles = [figure.title for figure in class_figures([of(folder)])]
    assert [title.split(" on ")[0] for title in titles] == [
        "Accuracy by class", "Confidence and accuracy", "Confusion of smallcnn under pgd(steps=10)",
    ]  # fmt: skip


def test_the_table_of_one_model_names_what_each_class_is_taken_for(folder):
    table = by_class_table(of(folder))
    assert [[entry.text for entry in row] for row in table.rows] == [
        ["0", "4", "100.0 %", "50.0 %", "1", "50.0 %"],
        ["1", "3", "66.7 %", "0.0 %", "2", "66.7 %"],
        ["2", "3", "66.7 %", "0.0 %", "0", "100.0 %"],
    ]


def test_of_many_classes_those_that_are_least_robust_are_drawn(tmp_path):
    labels = np.repeat(np.arange(50), 2)
    adversarial = np.where(labels < 5, (labels + 1) % 50, labels)
    record = factory.robustness(np.ones(100, dtype=bool), adversarial == labels)
    answers = Answers(labels, labels, adversarial, *np.ones((2, 100)))
    factory.write(tmp_path, record.model_copy(update={"predictions": Predictions.pack(answers, 50)}))
    chosen = shown_classes([of(tmp_path)])
    assert len(chosen) == 20
    assert chosen[:5] == [0, 1, 2, 3, 4]
    assert len(list(class_figures([of(tmp_path)]))) == 2  # a confusion of 50 classes is not drawn
