"""A small suite on the digits, and a run of it."""

from __future__ import annotations

from pathlib import Path

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Record, read_records
from epsbench.harness.run.runner import run_suite

SMALL = """
[robustness]
data = "digits"
[robustness.training]
epochs = 2
[robustness.matrix]
model = "smallcnn"
attack = ["noise", "fgsm", { name = "pgd", steps = 3, random_start = true }]
eps = [0.05, 0.2]
"""
TINY = """
[robustness]
data = "digits"
[robustness.training]
epochs = 6
[robustness.matrix]
model = "smallcnn"
attack = ["noise", "fgsm"]
eps = [0.05, 0.2]
"""


def suite_of(folder: Path, text: str = SMALL) -> Suite:
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return load_suite(str(path), limit=200)


def run(suite: Suite, results: Path, **options: object) -> tuple[int, dict[str, Record]]:
    code = run_suite(suite, results, Options(quiet=True, device="cpu", **options))
    return code, {record.id: record for record in read_records(results)}
