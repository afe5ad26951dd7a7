"""Gates read each record once: the number of reads grows with the number of cells, whatever the number of bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Metric, Record, Verdicts, write_record
from epsbench.harness.records import files as record_files
from epsbench.harness.report.gates import check, compare

SUITE = """
[robustness]
data = "digits"
matrix = { model = "smallcnn", attack = "fgsm", eps = [EPS] }
"""
BOUND = "[[robustness.expect]]\nclean_accuracy = { min = 0.MIN }\n"


def recorded(folder: Path, name: str, cells: int, bounds: int) -> Path:
    path = folder / f"{name}.toml"
    text = SUITE.replace("EPS", ", ".join(str((n + 1) / 1000) for n in range(cells)))
    path.write_text(text + "".join(BOUND.replace("MIN", str(n + 1)) for n in range(bounds)), encoding="utf-8")
    clean = np.ones(8, dtype=bool)
    for cell in load_suite(str(path)).cells:
        share = Metric(value=1.0, low=0.7, high=1.0, n=8)
        record = Record(
            id=cell.id, status="ok", cell=cell.canonical(), code=cell.code, started="2026", finished="2026",
            metrics={"clean_accuracy": share, "robust_accuracy": share}, verdicts=Verdicts.pack(clean, clean),
        )  # fmt: skip
        write_record(folder / name, record)
    return path


@pytest.fixture
def reads(monkeypatch):
    paths: list[Path] = []
    original = record_files.read_record
    monkeypatch.setattr(record_files, "read_record", lambda path: paths.append(path) or original(path))
    return paths


@pytest.mark.parametrize("cells", [5, 20])
def test_check_reads_each_record_once(tmp_path, reads, cells):
    path = recorded(tmp_path, "many", cells, bounds=4)
    code, text = check.check_suite(load_suite(str(path)), tmp_path / "many")
    assert code == 0
    assert f"{4 * cells} of {4 * cells} bounds hold" in text
    assert len(reads) == len(set(reads)) == cells


@pytest.mark.parametrize("cells", [5, 20])
def test_compare_reads_each_record_of_both_once(tmp_path, reads, cells):
    for name in ("a", "b"):
        recorded(tmp_path, name, cells, bounds=0)
    code, _ = compare.compare(tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert len(reads) == len(set(reads)) == 2 * cells
