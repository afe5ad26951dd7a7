"""The table of trainings says what was trained and what was measured as it was given."""

from __future__ import annotations

import factory
import pytest

from epsbench.harness.plan.training_text import how_trained_record
from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import load_results


def test_the_table_says_what_trained_and_what_was_as_given(tmp_path):
    trained = factory.robustness([True] * 4, [True] * 4, model={"name": "smallcnn"})
    half = factory.robustness([True] * 4, [True] * 4, model={"name": "resnet18"}, subset="first-half", limit=1001)
    given = factory.robustness([True] * 4, [False] * 4, model={"name": "timm:x"}, training={"epochs": 0})
    given = given.model_copy(update={"training": {"seconds": 0.0, "epochs": 0, "weights_sha256": "ab"}})
    content = Content(load_results(factory.write(tmp_path, trained, half, given)))
    table = content.training_cost
    titles = [column.title for column in table.columns]
    rows = [dict(zip(titles, (entry.text for entry in row), strict=True)) for row in table.rows]
    by_model = {row["model"]: row for row in rows}
    assert by_model["smallcnn"]["trains"] == "10 epochs on 54,000 images"
    assert by_model["resnet18"]["trains"] == "10 epochs on 500 images"
    assert by_model["timm:x"]["trains"] == "as given"
    assert (by_model["timm:x"]["training"], by_model["timm:x"]["× undefended"]) == ("–", "–")
    cells = {row[2].text.split(",")[1].strip(): row[4].text for row in content.details[-1].rows}
    assert cells["timm:x"] == "as given"
    assert cells["smallcnn"].startswith("10 epochs on 54,000 images, 1 min")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"training": {"epochs": 1}}, "1 epoch on 54,000 images"),
        ({"training": {"epochs": 1}, "data": "birds.py:Birds"}, "1 epoch"),
        ({"training": {"epochs": 0}, "start": {"data": "mnist"}}, "as it starts"),
        ({"training": {"epochs": 1}, "start": {"data": "mnist"}}, "1 epoch on 54,000 images, from weights of 1 epoch"),
        (
            {"training": {"epochs": 1}, "start": {"data": "mnist", "training": {"epochs": 18}}},
            "1 epoch on 54,000 images, from weights of 18 epochs",
        ),
        ({"training": {}}, ""),
        ({"training": "fast"}, ""),
    ],
)
def test_how_a_model_was_trained(changes, text):
    assert how_trained_record(factory.robustness_cell(**changes)) == text


def test_a_defense_is_compared_with_the_undefended_training_from_the_same_weights(tmp_path):
    none, trades = {"name": "none"}, {"name": "trades", "eps": "0.1"}
    start = {
        "data": "mnist", "model": {"name": "smallcnn"}, "defense": none, "augmentation": "none", "seed": 0,
        "training": {"epochs": 18},
    }  # fmt: skip
    records = [
        factory.robustness([True] * 4, [True] * 4, defense=defense, start=begin).model_copy(
            update={"training": {"seconds": seconds, "epochs": 10}}
        )
        for defense, begin, seconds in (
            (none, start, 2.0), (trades, start, 10.0), (none, start | {"defense": trades}, 4.0),
        )
    ]  # fmt: skip
    table = Content(load_results(factory.write(tmp_path, *records))).training_cost
    titles = [column.title for column in table.columns]
    rows = [dict(zip(titles, (entry.text for entry in row), strict=True)) for row in table.rows]
    assert {row["training"]: row["× undefended"] for row in rows} == {"2 s": "1 ×", "4 s": "1 ×", "10 s": "5 ×"}


def test_a_defense_of_both_trainings_is_compared_with_two_trainings_without_it(tmp_path):
    none, trades = {"name": "none"}, {"name": "trades", "eps": "0.1"}
    start = {"data": "fashion-mnist", "model": {"name": "smallcnn"}, "augmentation": "none", "seed": 0}
    records = [
        factory.robustness([True] * 4, [True] * 4, defense=defense, start=start | {"defense": first}).model_copy(
            update={"training": {"seconds": seconds, "epochs": 10}}
        )
        for defense, first, seconds in ((none, none, 2.0), (trades, trades, 12.0), (none, trades, 3.0))
    ]
    table = Content(load_results(factory.write(tmp_path, *records))).training_cost
    titles = [column.title for column in table.columns]
    rows = [dict(zip(titles, (entry.text for entry in row), strict=True)) for row in table.rows]
    assert {row["training"]: row["× undefended"] for row in rows} == {"2 s": "1 ×", "3 s": "1 ×", "12 s": "6 ×"}
