"""Cells on corrupted images: planned, measured, attacked and reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.report.build import report
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "digits"
limit = 300
training = { epochs = 6, batch_size = 32, learning_rate = 1e-2 }
[robustness.matrix]
model = { name = "smallcnn", width = 8, hidden = 16 }
attack = ["none", "fgsm"]
eps = [0, 0.1]
corruption = ["none", "gaussian-noise", { name = "contrast", severity = 5 }]
severity = [1, 5]
"""


def suite_of(folder: Path, text: str = SUITE):
    path = folder / "corrupted.toml"
    path.write_text(text, encoding="utf-8")
    return load_suite(str(path))


def test_corruption_and_severity_make_one_cell_each(tmp_path):
    cells = suite_of(tmp_path).cells
    images = [("none", 0), ("gaussian-noise", 1), ("gaussian-noise", 5), ("contrast", 5)]
    without = [(cell.corruption, cell.severity) for cell in cells if cell.attack.name == "none"]
    assert without == images  # once, although the suite has two ε
    assert len(cells) == 3 * len(images)
    assert len({cell.weights_key for cell in cells}) == 1
    assert len({cell.id for cell in cells}) == len(cells)
    assert "corruption" not in cells[0].canonical()
    plain = suite_of(tmp_path, SUITE.replace('corruption = ["none", "gaussian-noise", '
                                             '{ name = "contrast", severity = 5 }]\n'
                                             "severity = [1, 5]\n", ""))  # fmt: skip
    assert {cell.id for cell in plain.cells} <= {cell.id for cell in cells}


@pytest.mark.parametrize(
    ("corruption", "reason"),
    [
        ('"fogg"', "unknown corruption 'fogg'; did you mean 'fog'"),
        ('{ name = "fog", severity = 6 }', "severity must be a whole number from 1 to 5, not 6"),
        ('{ name = "fog", level = 2 }', "unknown key 'level'"),
        ('{ name = "none", severity = 1 }', "has no severity"),
        ('"motion-blur"', "needs images of at least 16 pixels a side, and 'digits' has 8×8"),
        ('["fog", "fog"]', "repeats"),
    ],
)
def test_corruptions_are_checked(tmp_path, corruption, reason):
    text = re.sub(r"corruption = .*", f"corruption = {corruption}", SUITE)
    with pytest.raises(InputError, match=re.escape(reason)):
        suite_of(tmp_path, text)


def test_corrupted_cells_are_measured_and_reported(tmp_path):
    suite = suite_of(tmp_path)
    assert run_suite(suite, tmp_path / "out", Options(quiet=True, device="cpu")) == 0
    records = {record.id: record for record in read_records(tmp_path / "out")}
    assert all(records[cell.id].status == "ok" for cell in suite.cells)

    def accuracy(metric, **wanted):
        chosen = [cell for cell in suite.cells
                  if all(getattr(cell, key) == value for key, value in wanted.items() if key != "attack")
                  and cell.attack.name == wanted["attack"]]  # fmt: skip
        return [records[cell.id].metrics[metric].value for cell in chosen]

    (clean,) = accuracy("clean_accuracy", attack="none", severity=0)
    little, much = (
        accuracy("clean_accuracy", attack="none", corruption="gaussian-noise", severity=s)[0] for s in (1, 5)
    )
    assert abs(clean - little) < 0.05
    assert much <= clean + 0.05
    (contrast,) = accuracy("clean_accuracy", attack="none", corruption="contrast", severity=5)
    assert contrast < clean - 0.05
    unattacked, attacked = accuracy("robust_accuracy", attack="fgsm", corruption="contrast")
    assert attacked < unattacked == contrast
    text = report(tmp_path / "out", fmt="markdown")
    assert "Corrupted images of digits (severity 1, 5)" in text
    table = text[text.index("Corrupted images") :]
    assert f"{100 * (contrast + (little + much) / 2) / 2:.1f}" in table  # the mean over kinds
    html = report(tmp_path / "out", fmt="html")
    assert "Corrupted images of digits" in html
