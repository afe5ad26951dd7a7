"""The table of parts: in the order in which they ran, and down to the accuracy of the leaderboard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from epsbench.harness.report.results.loading import load_results
from epsbench.harness.report.robustness.parts import parts_table

REFERENCE = Path(__file__).parents[3] / "results" / "reference" / "mnist-autoattack"


def test_the_parts_of_the_reference_run():
    results = load_results(REFERENCE)
    table = parts_table(results)
    assert table is not None
    titles = [column.title for column in table.columns]
    lines = [{title: entry.text for title, entry in zip(titles, row, strict=True)} for row in table.rows]
    assert [line["part"] for line in lines] == ["apgd-ce", "apgd-t", "fab-t", "square"] * 9
    assert [line["ε"] for line in lines if line["ε"]] == ["0.1", "0.2", "0.3"] * 3
    fooled = sum(int(line["fooled"].replace(",", "")) for line in lines)
    measured = [record for record in results.robustness if record.parts]
    clean = sum(record.verdicts.unpack()[0].sum() for record in measured)
    robust = sum(record.verdicts.unpack()[1].sum() for record in measured)
    assert fooled == clean - robust


def test_a_cost_that_is_no_number_is_none():
    results = load_results(REFERENCE)
    record = next(record for record in results.robustness if record.parts)
    strange = {"forwards": "many", "backwards": None, "gradients_per_image": float("inf"), "seconds": [1.0]}
    parts = tuple(part.model_copy(update={"cost": strange}) for part in record.parts)
    table = parts_table(replace(results, current=(record.model_copy(update={"parts": parts}),)))
    assert table is not None
    titles = [column.title for column in table.columns]
    for row in table.rows:
        line = {title: entry.text for title, entry in zip(titles, row, strict=True)}
        assert (line["gradients/image"], line["passes/image"], line["time"]) == ("0", "0", "0 s")
