"""Records of other versions of the format are migrated, or left out with a warning: they block nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from epsbench.harness import migrations
from epsbench.harness.digest import cell_id
from epsbench.harness.errors import InputError
from epsbench.harness.migrations import OtherSchemaError, RecordWarning
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import Record, find_record, read_record, read_records, record_path, write_record
from epsbench.harness.report.build import report
from epsbench.harness.report.gates.check import NOT_MEASURED, check_suite
from epsbench.harness.report.gates.compare import compare

SUITE = """
[robustness]
data = "digits"
[robustness.matrix]
model = "smallcnn"
attack = ["noise", "fgsm"]
eps = ["1/10"]
[[robustness.expect]]
clean_accuracy = { min = 0.5 }
"""


def record(seed: int = 0, **fields: object) -> Record:
    cell = {"task": "robustness", "seed": seed}
    return Record.model_validate({"id": cell_id(cell, {}), "status": "ok", "cell": cell} | fields)


def with_version(path: Path, version: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version, "cell": "a new form"}))


def test_a_record_of_another_schema_is_left_out_with_a_warning(tmp_path):
    kept, of_other = record(0), record(1)
    other = write_record(tmp_path, of_other)
    write_record(tmp_path, kept)
    with_version(other, 99)
    with pytest.warns(RecordWarning, match=f"{of_other.id}.json: left out: schema_version 99"):
        assert read_records(tmp_path) == [kept]
    with pytest.warns(RecordWarning):
        assert find_record(tmp_path, of_other.id) is None
    with pytest.warns(RecordWarning):
        assert RecordIndex(tmp_path).entry(of_other.id) is None
    with pytest.raises(OtherSchemaError, match="read it with the epsbench that wrote it"):
        read_record(other)


@pytest.mark.parametrize("version", [0, 2, "2", 2.5, True, None, [1], {"of": "x" * 1000}, 10**40])
def test_any_other_version_is_left_out_even_one_that_is_no_number(tmp_path, version):
    path = write_record(tmp_path, record())
    with_version(path, version)
    with pytest.warns(RecordWarning, match="left out: schema_version") as warned:
        assert read_records(tmp_path) == []
    assert len(str(warned[0].message)) < 400 + len(str(tmp_path))


def test_a_record_without_a_version_is_one_of_the_first(tmp_path):
    path = write_record(tmp_path, record())
    tree = json.loads(path.read_text())
    del tree["schema_version"]
    path.write_text(json.dumps(tree))
    assert read_records(tmp_path) == [record()]


@pytest.mark.parametrize("version", [99, "new"])
def test_measuring_anew_keeps_the_record_of_another_version_beside_the_new_one(tmp_path, version):
    path = write_record(tmp_path, record())
    with_version(path, version)
    other = path.read_bytes()
    write_record(tmp_path, record())
    assert read_records(tmp_path) == [record()]
    assert path.with_suffix(".other-version").read_bytes() == other


def test_an_old_record_goes_through_every_migration(tmp_path, monkeypatch):
    path = write_record(tmp_path, record())
    now = read_record(path)
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"schema_version": -1, "cell": None, "the_cell": tree["cell"]}))
    steps = {
        -1: lambda old: old | {"moved": old["the_cell"]},
        0: lambda old: old | {"cell": old["moved"]},
    }
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    assert read_record(path) == now
    monkeypatch.setattr(migrations, "MIGRATIONS", {-1: steps[-1]})
    with pytest.raises(OtherSchemaError, match="schema_version -1"):
        read_record(path)


@pytest.mark.parametrize("step", [lambda old: old | {"cell": old["gone"]}, lambda old: old | {"cell": "no table"}])
def test_an_old_record_that_no_migration_makes_a_record_is_left_out(tmp_path, monkeypatch, step):
    path = write_record(tmp_path, record())
    with_version(path, 0)
    monkeypatch.setattr(migrations, "MIGRATIONS", {0: step})
    with pytest.raises(OtherSchemaError, match="left out: schema_version 0"):
        read_record(path)


@pytest.fixture(params=[0, 2, "two", None])
def two_cells(tmp_path, request):
    """A suite of two cells, and a results folder where the record of the second is of another version."""
    path = tmp_path / "two.toml"
    path.write_text(SUITE)
    suite, results = load_suite(str(path)), tmp_path / "results"
    metric = {"clean_accuracy": {"value": 1.0, "low": 0.85, "high": 1.0, "n": 8}}
    verdicts = {"n": 8, "clean": "/w==", "robust": "8A=="}
    for cell in suite.cells:
        fields = {"id": cell.id, "cell": cell.canonical(), "code": cell.code, "metrics": metric, "verdicts": verdicts}
        write_record(results, record(**fields))
    with_version(record_path(results, suite.cells[1].id), request.param)
    return suite, results


def test_such_a_record_blocks_neither_report_nor_check_compare_or_plan(two_cells):
    suite, results = two_cells
    with pytest.warns(RecordWarning):
        assert "noise" in report(results, "text")
    with pytest.warns(RecordWarning):
        code, text = check_suite(suite, results)
    assert (code, text.splitlines()[0][:5], text.splitlines()[1][:12]) == (NOT_MEASURED, "holds", "not measured")
    with pytest.warns(RecordWarning):
        assert compare(results, results)[0] == 0
    with pytest.warns(RecordWarning):
        assert [cell.id for cell in plan(suite, results).pending] == [suite.cells[1].id]


def test_the_command_line_shows_the_warning_as_one_line(two_cells):
    suite, results = two_cells
    command = [sys.executable, "-m", "epsbench.harness.cli", "plan", str(suite.path), "--out", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"epsbench: warning: {record_path(results, suite.cells[1].id)}: left out: schema_version")
    assert "1 done" in done.stdout


def test_thousands_of_them_are_a_few_lines(tmp_path):
    suite = tmp_path / "two.toml"
    suite.write_text(SUITE)
    for number in range(30):
        with_version(write_record(tmp_path / "results", record(number)), 2)
    (first, _) = load_suite(str(suite)).cells
    kept = record(id=first.id, cell=first.canonical(), code=first.code)
    assert write_record(tmp_path / "results", kept).is_file()
    command = [sys.executable, "-m", "epsbench.harness.cli", "report", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == migrations.MOST_WARNINGS + 1
    assert lines[-1] == "epsbench: warning: more records are left out for the same reason"


def test_a_folder_of_nothing_else_is_one_message(tmp_path):
    with_version(write_record(tmp_path, record()), 2)
    with pytest.warns(RecordWarning), pytest.raises(InputError, match="no records that this version of epsbench reads"):
        report(tmp_path, "text")
