"""Every table tells models apart, whatever they differ in."""

from __future__ import annotations

from collections import Counter

import pytest

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import load_results
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "digits"
[robustness.training]
epochs = 1
learning_rate = 0.02
[robustness.matrix]
model = "smallcnn"
{axis}
attack = [
    "none", {{ name = "pgd", steps = 2 }}, {{ name = "ddn", steps = 3 }},
    {{ name = "ensemble", parts = [{{ name = "apgd", steps = 2 }}, {{ name = "square", steps = 2 }}] }},
]
corruption = ["none", "gaussian-noise"]
norm = "l2"
eps = 1.0
"""
AXES = {
    "recipe": "training = [{}, { label_smoothing = 0.1 }]",
    "augmentation": 'augmentation = ["none", "shift"]',
    "subset": 'subset = ["first-half", "second-half"]',
    "start": 'start = ["scratch", { augmentation = "shift" }]',
}
TABLES = {"Robust", "Corrupted", "Smallest", "Leaderboard", "What", "Classes"}


@pytest.fixture(scope="module", params=AXES)
def tables(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    (folder / "apart.toml").write_text(SUITE.format(axis=AXES[request.param]), encoding="utf-8")
    run_suite(load_suite(str(folder / "apart.toml"), limit=40), folder / "out", Options(quiet=True, device="cpu"))
    return Content(load_results(folder / "out")).tables


def test_no_two_rows_of_a_table_have_the_same_names(tables):
    shown = [table for table in tables if table.title.split()[0] in TABLES]
    assert {table.title.split()[0] for table in shown} == TABLES
    for table in shown:
        named = [index for index, column in enumerate(table.columns) if not column.numeric]
        rows = [tuple(row[index].plain for index in named) for row in table.rows]
        firsts = [row for position, row in enumerate(rows) if not table.starts or position in table.starts]
        repeated = [row for row, count in Counter(firsts).items() if count > 1]
        assert not repeated, table.title
