"""The table of recipes: the share of the amortisation gap that each one closes."""

from __future__ import annotations

import pytest
from generative_factory import column, metric, refined, tables

from epsbench.harness.report.generative.cures import TITLE, cure_tables

RECIPE = {"epochs": 6, "learning_rate": 2e-3}


def trained(gap, error=0.0, **recipe):
    record = refined(training=RECIPE | recipe)
    return record.model_copy(update={"metrics": record.metrics | {"amortisation_gap_bpd": metric(gap, error or None)}})


def only(*records):
    (table,) = [table for table in tables(*records).likelihood if table.title.startswith(TITLE)]
    return table


def test_shares_of_the_gap_are_relative_to_the_recipe_as_it_is():
    table = only(trained(0.020, encoder_noise=0.1), trained(0.016), trained(0.004, encoder_batches="samples", epochs=6))
    assert column(table, "recipe") == ["as it is", "encoder_batches samples", "encoder_noise 0.1"]
    assert [text.partition(" [")[0] for text in column(table, "share of the gap closed")] == ["–", "75.0 %", "-25.0 %"]


def test_a_key_that_every_record_has_may_be_what_a_recipe_changes():
    """Records state ``average`` also where there is none."""
    table = only(trained(0.016, average=0.999), trained(0.020, average=0.0), trained(0.018, average=0.0, clip=1.0))
    assert column(table, "recipe") == ["as it is", "average 0.999", "clip 1.0"]
    assert column(only(trained(0.016, average=0.999), trained(0.020, average=0.0)), "recipe")[0] == "as it is"


def test_the_interval_is_that_of_a_ratio():
    """The delta method: of a/b with errors s and t, the variance is (s² + (a/b)² t²) / b²."""
    table = only(trained(0.02, 0.001), trained(0.01, 0.0005, encoder_noise=0.1))
    half = 1.96 * (0.0005**2 + 0.25 * 0.001**2) ** 0.5 / 0.02
    expected = f"50.0 % [{50 - 100 * half:.1f}, {50 + 100 * half:.1f}]"
    assert column(table, "share of the gap closed")[1] == expected


@pytest.mark.parametrize(
    "records",
    [
        (trained(0.02),),
        (trained(0.02, encoder_noise=0.1), trained(0.01, encoder_noise=0.2)),  # none is the recipe as it is
        (trained(0.02), refined(training=RECIPE | {"encoder_noise": 0.1}, z_dim=5)),  # they differ in more
    ],
)
def test_without_a_recipe_to_compare_with_there_is_no_table(records):
    assert not [table for table in tables(*records).likelihood if table.title.startswith(TITLE)]
    assert cure_tables([]) == []
