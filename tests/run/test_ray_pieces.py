"""The pieces of a run on Ray, without a cluster: what workers deliver, copy and post, and what the driver shows."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from ray_bench import OUTSIDE, Reports, run, suite_of

from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.data import DATASETS, pixels
from epsbench.harness.plan.plan import plan
from epsbench.harness.records import Record, Status, read_records, write_record
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.streamed import StreamedExamples
from epsbench.harness.run.executors import ray as executor
from epsbench.harness.run.executors import ray_files, ray_progress, ray_worker


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
        return Record(id=cell.id, status=status, cell=cell.canonical(), code=cell.code, started=context.clock())

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


class Direct:
    """An actor in this process."""

    def __init__(self, actor: object) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=getattr(self._actor, name))


def test_what_a_worker_posts_is_shown_as_if_it_ran_here(monkeypatch):
    monkeypatch.setattr(ray_progress, "EVERY", 0.0)
    board, reports = Direct(ray_progress.Board()), Reports()
    mirror = ray_progress.Mirror(SimpleNamespace(get=lambda value: value), reports, board)
    with mirror:
        with ray_progress.Posting(board, "a job").task("training", 10, "epochs") as task:
            task.advance(4, resumed_after_epoch=4)
            mirror.show()
            training = reports.tasks["training"]
            assert (training.steps, training.fields) == (4, {"resumed_after_epoch": 4})
            task.advance(loss=0.5)
            task.advance(loss=0.25)
            task.to(6.5)
            mirror.show()
            assert (training.steps, training.fields, training.done) == (6, {"loss": 0.25}, 6.5)
            mirror.show()
            assert (training.steps, training.open) == (6, 1)
        mirror.show()
        assert training.open == 0
        ray_progress.Posting(board, "lost").task("attack", None).__enter__()
        ray_progress.Posting(board, "other").task("loading", None).__enter__()
        mirror.show()
        mirror.forget("lost")
        mirror.show()
        assert (reports.tasks["attack"].open, reports.tasks["loading"].open) == (0, 1)
        board.post_share.remote("helps", 0.25)
        assert [board.take_share.remote("helps") for _ in range(2)] == [0.25, None]
    assert reports.tasks["loading"].open == 0


def test_a_machine_that_does_not_see_the_files_of_streamed_data_copies_them(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ray_files, "PART", 1000)
    monkeypatch.setattr(ray_files, "_COPIES", {})
    monkeypatch.setattr(pixels, "MOVED", {})
    monkeypatch.setattr(ray_files, "MOVED", pixels.MOVED)
    raw = numpy.random.RandomState(0).randint(0, 255, (40, 3, 8, 8)).astype(numpy.uint8)
    numpy.save(tmp_path / "x.npy", raw)
    examples = StreamedExamples(pixels.PixelFile(tmp_path / "x.npy"), torch.arange(40), 255)
    data = Data(DATASETS["digits"], examples[:20], examples[:0], examples[20:])
    sent, files = pickle.dumps(data), ray_files.files_of([data])
    ray_files.fetch(files, lambda *given: pytest.fail("it is there"))
    assert torch.equal(pickle.loads(sent).test.pixels(), examples[20:].pixels())
    (tmp_path / "x.npy").rename(tmp_path / "elsewhere.npy")
    ray_files.fetch(files, lambda path, start, size: ray_files.part_of(path.with_name("elsewhere.npy"), start, size))
    there = pickle.loads(sent)
    assert torch.equal(there.test.pixels(), examples[20:].pixels())
    assert torch.equal(there.train.labels, torch.arange(20))
    with pytest.raises(InputError, match="cannot be read for another machine"):
        ray_files.part_of(tmp_path / "x.npy", 0, 3)


def test_a_worker_that_sees_no_folder_of_the_run_delivers_files(tmp_path, monkeypatch):
    """Here the worker is this process: of two machines with folders of their own, one is simulated."""
    suite = suite_of(tmp_path, OUTSIDE.partition("[[")[0])
    jobs = plan(suite, tmp_path / "results").jobs
    results, weights = tmp_path / "results", tmp_path / "weights"
    context = Context(results, weights, torch.device("cpu"), suite.name, suite.base)
    for job in jobs:
        context.data(job.cells[0].data, job.cells[0].limit)
    monkeypatch.setattr(ray_worker, "_DATA", {"nowhere": context._data})
    monkeypatch.setattr(ray_worker, "_PLACES", {})
    away = replace(context, results=Path("/nonexistent/results"), weights=Path("/nonexistent/weights"))
    order = ray_worker.Order(away, "nowhere", [], ship=True)
    for job in jobs:
        for delivered in ray_worker.work(job, order, {}, 1):
            assert executor._received(delivered, context).status == "ok"
    records = {record.id: record for record in read_records(results)}
    assert set(records) == {cell.id for cell in suite.cells}
    assert all((results / "pictures" / f"{identity}.npz").is_file() for identity in records)
    local = run(suite, tmp_path / "local", "local")[1]
    assert {each.id: each.verdicts for each in local.values()} == {i: r.verdicts for i, r in records.items()}


def test_weights_of_the_run_reach_a_worker_that_does_not_see_them(tmp_path, monkeypatch):
    text = OUTSIDE.partition("[[")[0].replace("epochs = 0", "epochs = 1")
    suite, results = suite_of(tmp_path, text), tmp_path / "results"
    local = run(suite, results, "local")[1]
    context = Context(results, results / "weights", torch.device("cpu"), suite.name, suite.base)
    job = plan(suite, tmp_path / "other").jobs[0]
    files = ray_worker.files_of_weights(context.weights, job.cells)
    assert sorted(files) == [f"{job.key}.safetensors"]
    context.data(job.cells[0].data, job.cells[0].limit)
    monkeypatch.setattr(ray_worker, "_DATA", {"nowhere": context._data})
    monkeypatch.setattr(ray_worker, "_PLACES", {})
    order = ray_worker.Order(replace(context, results=Path("/nonexistent")), "nowhere", [], ship=True)
    for delivered in ray_worker.work(job, order, files, 1):
        assert delivered.record.training["cached"]
        assert delivered.record.verdicts == local[delivered.record.id].verdicts
        assert not [name for name in delivered.files if name.startswith("weights/")]
