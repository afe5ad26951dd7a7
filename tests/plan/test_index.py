"""The index of a results folder: plans read no record twice, and an index that does not fit is of no consequence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from epsbench.harness.plan.index_file import FEWEST, NAME
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Record, Verdicts, record_path, write_record

SHA = "ab" * 32
SUITE = """
[robustness]
data = "digits"
matrix = { model = "smallcnn", attack = "fgsm", eps = [EPS] }
"""


def measured(folder: Path, cells: int = FEWEST) -> tuple[Suite, Path]:
    path, results = folder / "many.toml", folder / "results"
    path.write_text(SUITE.replace("EPS", ", ".join(str((n + 1) / 1000) for n in range(cells))), encoding="utf-8")
    suite = load_suite(str(path))
    bits = np.arange(8) < 3
    for cell in suite.cells:
        write_record(
            results,
            Record(
                id=cell.id, status="ok", cell=cell.canonical(), code=cell.code,
                verdicts=Verdicts.pack(~bits, bits & ~bits),
                cost={"backwards": 10, "shared_backwards": 5, "seconds": 1.5, "device": "x"},
                training={"weights_sha256": SHA}, finished="2026-11-02T14:03:59+00:00",
            ),
        )  # fmt: skip
    return suite, results


def test_a_second_plan_reads_no_record(tmp_path, read):
    suite, results = measured(tmp_path)
    first = plan(suite, results)
    assert len(read) == FEWEST
    assert (results / NAME).is_file()
    second = plan(suite, results)
    assert len(read) == FEWEST
    assert second.done == first.done == {cell.id for cell in suite.cells}
    one = suite.cells[0].id
    before, after = first.records.entry(one), second.records.entry(one)
    assert (after.cost, after.timing, after.weights, after.cell, after.model, after.finished) == (
        before.cost, before.timing, before.weights, before.cell, before.model, before.finished
    )  # fmt: skip
    assert second.records.newest([one]) == first.records.newest([one])


def test_only_what_changed_is_read(tmp_path, read):
    suite, results = measured(tmp_path)
    plan(suite, results)
    read.clear()
    changed, gone = suite.cells[3].id, suite.cells[5].id
    record = Record.model_validate_json(record_path(results, changed).read_bytes())
    write_record(results, record.model_copy(update={"status": "void"}))
    record_path(results, gone).unlink()
    made = plan(suite, results)
    assert read == [changed]
    assert made.void == {changed}
    assert {cell.id for cell in made.pending} == {gone}


def test_verdicts_are_read_only_where_a_run_asks_for_them(tmp_path, read):
    suite, results = measured(tmp_path)
    plan(suite, results)
    read.clear()
    index = RecordIndex(results)
    assert not index.entry(suite.cells[0].id).whole
    assert read == []
    entries = index.of_weights(SHA)
    assert len(read) == FEWEST
    assert all(entry.verdicts is not None for entry in entries)
    index.of_weights(SHA)
    assert len(read) == FEWEST


def test_what_a_run_adds_is_in_the_index_too(tmp_path, read):
    suite, results = measured(tmp_path)
    index = RecordIndex(results)
    for cell in suite.cells:
        index.add(Record.model_validate_json(record_path(results, cell.id).read_bytes()))
    index.save()
    plan(suite, results)
    assert read == []


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00\xff", b'{"epsbench index": 999}\n[[1],["x"]]\n'])
def test_a_damaged_index_is_as_good_as_none(tmp_path, read, damage):
    suite, results = measured(tmp_path)
    plan(suite, results)
    whole = (results / NAME).read_bytes()
    read.clear()
    (results / NAME).write_bytes(damage)
    assert len(plan(suite, results).done) == FEWEST
    assert len(read) == FEWEST
    read.clear()
    (results / NAME).write_bytes(whole[:-30] + b"\n[1, 2]\n[[1,2,3,4],[]]\n")  # the end of a killed run
    assert len(plan(suite, results).done) == FEWEST
    assert len(read) == 1


def test_a_copied_folder_is_read_anew_and_lines_do_not_pile_up(tmp_path, read):
    suite, results = measured(tmp_path)
    plan(suite, results)
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    read.clear()
    for _ in range(4):
        for path in sorted((copy / "cells").iterdir()):
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
        assert len(plan(suite, copy).done) == FEWEST
    assert len(read) == 4 * FEWEST
    assert len((copy / NAME).read_bytes().splitlines()) < 6 * FEWEST
    assert all(json.loads(line) for line in (copy / NAME).read_bytes().splitlines() if line)


def test_few_records_need_no_index_and_a_folder_that_cannot_be_written_has_none(tmp_path, monkeypatch):
    suite, results = measured(tmp_path, cells=FEWEST - 1)
    plan(suite, results)
    assert not (results / NAME).exists()
    suite, results = measured(tmp_path, cells=FEWEST)
    (results / NAME).mkdir()  # for root, too, no file can be written there
    assert len(plan(suite, results).done) == FEWEST


def test_a_plan_of_nothing_writes_nothing(tmp_path):
    suite, _ = measured(tmp_path)
    plan(suite, tmp_path / "none")
    assert not (tmp_path / "none").exists()
