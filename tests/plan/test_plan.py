"""The plan: what is shared, what is recorded, what is left."""

from __future__ import annotations

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan.plan import plan, require_writable
from epsbench.harness.records import Record, record_path, write_record


def write(results, cell, status):
    write_record(results, Record(id=cell.id, status=status, cell=cell.canonical()))


def test_cells_that_share_a_model_are_one_job(load, small, tmp_path):
    made = plan(load(small), tmp_path / "none")
    assert [len(job.cells) for job in made.jobs] == [6, 6]
    assert len(made.pending) == 12
    assert not (tmp_path / "none").exists()


def test_done_and_void_cells_drop_out_and_failed_ones_are_run_again(load, small, tmp_path):
    suite = load(small)
    for cell, status in zip(suite.cells, ["ok"] * 6 + ["failed", "void"], strict=False):
        write(tmp_path, cell, status)
    made = plan(suite, tmp_path)
    assert (len(made.done), len(made.failed), len(made.void)) == (6, 1, 1)
    assert made.pending == (suite.cells[6], *suite.cells[8:])
    assert [len(job.cells) for job in made.pending_jobs] == [5]


def test_every_corrupt_record_is_named(load, small, tmp_path):
    suite = load(small)
    for cell in suite.cells[:2]:
        record_path(tmp_path, cell.id).parent.mkdir(exist_ok=True)
        record_path(tmp_path, cell.id).write_text("{")
    with pytest.raises(InputError) as raised:
        plan(suite, tmp_path)
    assert len(raised.value.messages) == 2
    assert "delete the file" in str(raised.value)


def test_gradients_are_predicted(load, small, tmp_path):
    made = plan(load(small), tmp_path)
    assert {cell.attack.name: made.predicted_gradients(cell) for cell in made.pending} == {
        "noise": 0, "fgsm": 500, "pgd": 2000,
    }  # fmt: skip


def test_a_results_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out DIR"):
        require_writable(tmp_path / "file")
    require_writable(tmp_path / "new" / "folder")
