"""Settings of generative models: what belongs together, their labels, and records that do not fit."""

from __future__ import annotations

import factory
import generative_factory as generative
import pytest
from generative_factory import made, tables

from epsbench.harness.errors import InputError
from epsbench.harness.records import record_path
from epsbench.harness.report.build import report
from epsbench.harness.report.generative.settings import families, short_names


def test_an_autoencoder_is_known_by_what_it_lacks():
    nameless = generative.autoencoder().model_copy(
        update={"cell": generative.autoencoder().cell | {"model": {"name": "module:Plain", "levels": 16}}}
    )
    assert [setting.likelihood for setting in made(nameless)] == [None]
    assert tables(nameless).likelihood == []
    assert tables(nameless).quality != []


def test_labels_name_the_recipe_only_where_one_model_has_several():
    slow = factory.TRAINING | {"epochs": 300}
    one, two = made(generative.model(), generative.model(training=slow))
    assert {one.model, two.model} == {"vae (training.epochs 10)", "vae (training.epochs 300)"}
    better = generative.model(model={"name": "vae-best", "levels": 16}, training=slow)
    assert [setting.model for setting in made(generative.model(), better)] == ["vae", "vae-best"]


def test_labels_name_the_evaluation_only_where_nothing_else_differs():
    other = generative.EVALUATION | {"importance_samples": 10}
    same = made(generative.model(), generative.model(evaluation=other))
    assert {setting.model for setting in same} == {
        "vae (evaluation.importance_samples 10)",
        "vae (evaluation.importance_samples 100)",
    }
    apart = made(generative.model(), generative.model(z_dim=2, evaluation=other))
    assert [setting.model for setting in apart] == ["vae", "vae"]
    slow = factory.TRAINING | {"epochs": 300}
    three = made(generative.model(), generative.model(training=slow), generative.model(training=slow, evaluation=other))
    assert {setting.model for setting in three} == {
        "vae (training.epochs 10)",
        "vae (training.epochs 300, evaluation.importance_samples 10)",
        "vae (training.epochs 300, evaluation.importance_samples 100)",
    }


def test_short_names_are_unique():
    results = made(*(generative.model(z_dim=z) for z in (2, 20)))
    assert short_names(results) == ["z = 2", "z = 20"]
    assert short_names(results[:1]) == ["vae, z = 2, β = 1"]
    assert short_names([results[0], results[0]]) == ["vae, z = 2, β = 1", "vae, z = 2, β = 1 (2)"]
    assert [len(family) for family in families(results, "z_dim")] == [2]
    assert [len(family) for family in families(results, "beta")] == [1, 1]


@pytest.mark.parametrize(
    ("cell", "message"),
    [({"evaluation": [1]}, "cell.evaluation"), ({"z_dim": "20"}, "cell.z_dim"), ({"beta": None}, "cell.beta")],
)
def test_a_malformed_cell_is_named(tmp_path, cell, message):
    record = generative.model()
    record = factory.of_cell(record, record.cell | cell)
    factory.write(tmp_path, record)
    with pytest.raises(InputError, match=message) as caught:
        report(tmp_path, "text")
    assert str(record_path(tmp_path, record.id)) in str(caught.value)
