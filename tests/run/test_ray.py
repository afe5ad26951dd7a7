"""Jobs on Ray: the records of the local executor, and a worker that dies takes only its own cells with it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from epsbench.harness.errors import InputError
from epsbench.harness.options import Options
from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Record, Status, read_records, write_record
from epsbench.harness.run.context import Context
from epsbench.harness.run.executors import ray as executor
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "digits"
limit = 300
[robustness.training]
epochs = 12
learning_rate = 4e-3
[robustness.matrix]
model = "smallcnn"
attack = ["noise", "fgsm", { name = "pgd", steps = 3, random_start = true }]
eps = [0.05, 0.2]
seed = [0, 1]
"""

DEADLY = """
import os
from dataclasses import dataclass
from epsbench.attacks.base import GradientAttack

@dataclass(frozen=True, kw_only=True)
class Dies(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        os._exit(3)
"""

OUTSIDE = """
[robustness]
data = "digits"
limit = 60
[robustness.training]
epochs = 0
[robustness.matrix]
model = ["smallcnn", { name = "smallcnn", width = 4 }]
attack = "fgsm"
eps = 0.1
[[robustness.include]]
model = "smallcnn"
attack = "deadly.py:Dies"
"""


@pytest.fixture
def one_thread():
    """As many threads as Ray gives a task of one core: then training rounds alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def suite_of(folder: Path, text: str) -> Suite:
    path = folder / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return load_suite(str(path))


def run(suite: Suite, results: Path, executor: str, **options: object) -> tuple[int, dict[str, Record]]:
    code = run_suite(suite, results, Options(quiet=True, device="cpu", executor=executor, **options))
    return code, {record.id: record for record in read_records(results)}


def test_without_ray_one_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'epsbench\[ray\]'"):
        run(suite_of(tmp_path, OUTSIDE.partition("[[")[0]), tmp_path / "results", "ray")


def test_a_cluster_that_does_not_answer_is_one_message(monkeypatch):
    def init(**options: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(InputError, match=r"RAY_ADDRESS=192\.0\.2\.1:6379 does not answer \(nobody there\)"):
        executor._start(SimpleNamespace(init=init))


def test_what_a_lost_worker_wrote_stands_and_only_old_failures_are_made_anew(tmp_path):
    suite = suite_of(tmp_path, OUTSIDE.partition("[[")[0].replace("eps = 0.1", "eps = [0.1, 0.2, 0.3, 0.4]"))
    context = Context(tmp_path, tmp_path, torch.device("cpu"), suite.name, suite.base)
    job = plan(suite, tmp_path).jobs[0]
    measured, failed_before, failed_now, missing = job.cells

    def record(cell: Cell, status: Status) -> Record:
        return Record(id=cell.id, status=status, cell=cell.canonical(), started=context.clock())

    write_record(tmp_path, record(measured, "ok"))
    write_record(tmp_path, record(failed_before, "failed"))
    executor._look_up([job], context)
    write_record(tmp_path, record(failed_now, "failed"))
    written = {each.id: each for each in read_records(tmp_path)}
    salvaged = {each.id: each for each in executor._salvaged(job, OSError("lost"), context, "")}
    assert salvaged[measured.id] == written[measured.id]
    assert salvaged[failed_now.id] == written[failed_now.id]
    for cell in (failed_before, missing):
        assert (salvaged[cell.id].status, salvaged[cell.id].failure.message) == ("failed", "lost")
    assert {each.id: each for each in read_records(tmp_path)} == salvaged


@pytest.fixture
def ray():
    return pytest.importorskip("ray", reason="needs Ray: pip install 'epsbench[ray]'")


@pytest.mark.slow
def test_records_are_those_of_the_local_executor(ray, one_thread, tmp_path):
    suite = suite_of(tmp_path, SUITE)
    local_code, local = run(suite, tmp_path / "local", "local")
    code, remote = run(suite, tmp_path / "remote", "ray")
    assert (local_code, code) == (0, 0)
    assert set(remote) == set(local) == {cell.id for cell in suite.cells}
    for identity, record in remote.items():
        expected = local[identity]
        assert record.metrics["clean_accuracy"].value > 0.5
        assert record.training["weights_sha256"] == expected.training["weights_sha256"]
        assert (record.status, record.cell, record.code) == (expected.status, expected.cell, expected.code)
        assert record.metrics == expected.metrics
        assert record.verdicts == expected.verdicts
        assert record.curves == expected.curves
        assert record.environment["packages"] == expected.environment["packages"]
        # Neighbours of a row change with the pace of early stopping, not what is computed for it.
        assert record.cost["gradients_per_image"] == expected.cost["gradients_per_image"]
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_worker_that_dies_fails_its_cells_without_a_record_and_no_others(ray, tmp_path):
    (tmp_path / "deadly.py").write_text(DEADLY, encoding="utf-8")
    suite, results = suite_of(tmp_path, OUTSIDE), tmp_path / "results"
    for _ in range(2):  # the second time a failed record lies there already, and is made anew
        code, records = run(suite, results, "ray")
        assert code == 1
        assert set(records) == {cell.id for cell in suite.cells}
        (dead,) = [record for record in records.values() if record.status == "failed"]
        assert dead.cell["attack"]["name"] == "deadly.py:Dies"
        assert dead.failure.type == "WorkerCrashedError"
        assert [record.status for record in records.values()].count("ok") == 2
        assert not ray.is_initialized()


@pytest.mark.slow
def test_what_the_user_must_mend_stops_the_run_with_its_message(ray, tmp_path):
    suite, results = suite_of(tmp_path, OUTSIDE.partition("[[")[0]), tmp_path / "results"
    run(suite, results, "local")
    for record in (results / "cells").iterdir():
        record.unlink()
    for weights in (results / "weights").iterdir():
        weights.write_bytes(b"torn")
    with pytest.raises(InputError, match=r"weights.*safetensors"):
        run(suite, results, "ray")
    assert not ray.is_initialized()
