"""Jobs on Ray: the records of the local executor, and a worker that dies takes only its own cells with it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import numpy
import pytest
import torch

import epsbench
from epsbench.harness.errors import InputError
from epsbench.harness.options import Options
from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.data import DATASETS, pixels
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Record, Status, images_path, read_records, write_record
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.streamed import StreamedExamples
from epsbench.harness.run.executors import ray as executor
from epsbench.harness.run.executors import ray_files, ray_progress, ray_worker
from epsbench.harness.run.executors.ray_files import reader
from epsbench.harness.run.executors.ray_progress import start_board
from epsbench.harness.run.progress import Silent, Task
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
        import ray
        if ray.is_initialized():  # the driver tries it before it starts Ray
            os._exit(3)
        return x_adv
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

ONE = """
[robustness]
data = "digits"
limit = 200
training = { epochs = 1 }
[robustness.matrix]
model = "smallcnn"
eps = 0.1
"""
OWN_ATTACK = 'attack = "own.py:Own"\n'
STORE = {"object_store_memory": 80 << 20}
WITHIN = 300  # seconds that a busy machine may take for what takes ten on a quiet one
_ATTACK = """
import os, time
from dataclasses import dataclass
from pathlib import Path
import epsbench
from epsbench.attacks.base import GradientAttack

@dataclass(frozen=True, kw_only=True)
class Own(GradientAttack):
    steps: int = 3
    def update(self, x_adv, gradient, eps, step):
        BODY
        return x_adv + eps * gradient.sign() / 2
"""
# A worker that helps has no lock on a results folder, and its task is called `attack`.
OWN = _ATTACK.replace(
    "BODY",
    """
        import ray
        mark = Path('{mark}')
        if ray.is_initialized() and "attack" in str(ray.get_runtime_context().get_task_name()) and not mark.exists():
            mark.write_text("helping")
            os._exit(7)
        while ray.is_initialized() and not mark.exists() and len(x_adv) > 2:
            time.sleep(0.05)  # the others must have begun
""".strip(),
)
WAITS = _ATTACK.replace(
    "BODY",
    """
        import ray
        while ray.is_initialized() and not Path('{go}').exists():
            time.sleep(0.05)
""".strip(),
)
DIES_WITH = _ATTACK.replace(
    "BODY",
    """
        import ray
        mark, there = Path('{mark}'), ray.is_initialized()
        if there and ray.get_runtime_context().get_node_id() == '{node}':
            mark.touch()
            while True:
                time.sleep(1)
        while there and not mark.exists() and ray.get_runtime_context().get_task_name():
            time.sleep(0.05)
""".strip(),
)
FROM_WHEEL = _ATTACK.replace("BODY", "assert epsbench.__file__.startswith('{place}'), epsbench.__file__")
DATA = """
import os
import numpy
def numbers():
    with numpy.load(os.environ["DATA_OF_THE_DRIVER"]) as file:
        return file["x"].astype("float32"), file["y"]
"""


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


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


@pytest.fixture(scope="module")
def ray():
    return pytest.importorskip("ray", reason="needs Ray: pip install 'epsbench[ray]'")


@pytest.fixture(scope="module")
def cluster(ray):
    """A head and a second node on this machine, with one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("DATA_OF_THE_DRIVER", raising=False)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **STORE})
        made.add_node(num_cpus=1, **STORE)
        made.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        made.shutdown()


def test_records_are_those_of_the_local_executor(cluster, ray, one_thread, tmp_path):
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
    assert not list((tmp_path / "remote").glob(".seen-*"))


def test_an_evaluation_is_split_over_the_cluster_and_a_lost_worker_costs_its_images_only(cluster, one_thread, tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "own.py").write_text(OWN.format(mark=mark), encoding="utf-8")
    suite, results = suite_of(tmp_path, ONE + OWN_ATTACK), tmp_path / "results"
    code, records = run(suite, results, "ray", batch_size=10)
    assert code in (0, 1)
    (record,) = records.values()
    assert mark.read_text() == "helping"
    assert len(record.shards) > 1
    assert sum(shard.images for shard in record.shards) == record.cost["attacked"]
    (alone,) = run(suite, tmp_path / "local", "local", batch_size=10)[1].values()
    assert (record.status, record.metrics, record.verdicts) == (alone.status, alone.metrics, alone.verdicts)
    for count in ("forwards", "backwards", "judge_forwards", "attacked"):
        assert record.cost[count] == alone.cost[count]


class Reports(Silent):
    """What a reporter is told: the tasks, how far each came, and whether it ended."""

    def __init__(self, on_task: Callable[[str], object] = lambda description: None) -> None:
        self.tasks: dict[str, Reported] = {}
        self._on_task = on_task

    def task(self, description: str, total: int | None, unit: str = "") -> Task:
        self._on_task(description)
        return self.tasks.setdefault(description, Reported(total, unit))


class Reported:
    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit, self.steps, self.done, self.open = total, unit, 0, 0.0, 0
        self.fields: dict[str, float] = {}

    def advance(self, n: int = 1, **fields: float) -> None:
        self.steps, self.fields = self.steps + n, fields

    def to(self, done: float) -> None:
        self.done = done

    def __enter__(self) -> Self:
        self.open += 1
        return self

    def __exit__(self, *raised: object) -> None:
        self.open -= 1


def executed(suite: Suite, results: Path, reports: Reports) -> list[Record]:
    results.mkdir()
    context = Context(results, results / "weights", torch.device("cpu"), suite.name, suite.base, progress=reports)
    context.data(suite.cells[0].data, suite.cells[0].limit)
    return list(executor.execute(plan(suite, results).jobs, context))


def test_the_driver_shows_what_its_workers_are_at(cluster, one_thread, tmp_path):
    """The attack goes on only after the driver has shown it; nothing is shown any more at the end."""
    go = tmp_path / "go"
    (tmp_path / "own.py").write_text(WAITS.format(go=go), encoding="utf-8")
    suite = suite_of(tmp_path, ONE + OWN_ATTACK)
    reports = Reports(lambda description: go.touch() if description.startswith("own.py:Own") else None)
    (record,) = executed(suite, tmp_path / "results", reports)
    assert record.status == "ok"
    (attack,) = (each for name, each in reports.tasks.items() if name.startswith("own.py:Own"))
    assert (attack.total, attack.unit) == (record.cost["attacked"], "images")  # two workers share them
    assert reports.tasks["jobs on Ray"].steps == 1
    assert [name for name, each in reports.tasks.items() if each.open] == []


def test_a_run_needs_no_progress(cluster, ray, one_thread, tmp_path, monkeypatch):
    """The actor that takes it is killed at the start."""

    def killed(ray):
        board = start_board(ray)
        ray.kill(board)
        return board

    monkeypatch.setattr(executor, "start_board", killed)
    (record,) = executed(suite_of(tmp_path, ONE + 'attack = "fgsm"\n'), tmp_path / "results", Reports())
    assert record.status == "ok"


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


def test_a_worker_that_dies_fails_its_cells_without_a_record_and_no_others(cluster, ray, tmp_path):
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


def test_what_the_user_must_mend_stops_the_run_with_its_message(cluster, ray, tmp_path):
    text = OUTSIDE.partition("[[")[0].replace("epochs = 0", "epochs = 1")
    suite, results = suite_of(tmp_path, text), tmp_path / "results"
    run(suite, results, "local")
    for record in (results / "cells").iterdir():
        record.unlink()
    for weights in (results / "weights").iterdir():
        weights.write_bytes(b"torn")
    with pytest.raises(InputError, match=r"weights.*safetensors"):
        run(suite, results, "ray")
    assert not ray.is_initialized()


def test_data_that_only_the_driver_has_reaches_the_other_node(cluster, ray, tmp_path, monkeypatch):
    from sklearn.datasets import load_digits

    digits = load_digits()
    numpy.savez(tmp_path / "numbers.npz", x=digits.images[:200, None] / 16, y=digits.target[:200])
    monkeypatch.setenv("DATA_OF_THE_DRIVER", str(tmp_path / "numbers.npz"))  # the nodes were started without it
    (tmp_path / "mine.py").write_text(DATA, encoding="utf-8")
    suite = suite_of(tmp_path, OUTSIDE.partition("[[")[0].replace('"digits"', '"mine.py:numbers"'))
    code, records = run(suite, tmp_path / "results", "ray")
    assert code in (0, 1)
    assert {record.status for record in records.values()} == {"ok"}
    assert {record.verdicts.n for record in records.values()} == {60}


def test_streamed_data_gives_the_records_of_the_local_executor(cluster, ray, one_thread, tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EPSBENCH_DATA_MEMORY", "0")  # of the driver alone: workers take what they are sent
    rng = numpy.random.RandomState(0)
    labels = numpy.arange(300) % 3
    images = rng.randint(0, 120, (300, 3, 12, 12)).astype(numpy.uint8)
    images[:, :, 3:9, 3:9] += (labels * 60).astype(numpy.uint8)[:, None, None, None]
    numpy.savez(tmp_path / "data.npz", images=images[:100], labels=labels[:100], x_train=images[100:],
                y_train=labels[100:])  # fmt: skip
    suite = suite_of(tmp_path, ONE.replace("limit = 200\n", "").replace('"digits"', '"data.npz"') + 'attack = "fgsm"\n')
    _, local = run(suite, tmp_path / "local", "local", keep_images=30)
    code, remote = run(suite, tmp_path / "remote", "ray", keep_images=30)
    assert code in (0, 1)
    assert list((tmp_path / "cache" / "decoded").glob("*/index.npz"))
    for identity, record in remote.items():
        assert record.verdicts == local[identity].verdicts
        assert record.training["weights_sha256"] == local[identity].training["weights_sha256"]
        kept = [numpy.load(images_path(tmp_path / place, identity))["images"] for place in ("local", "remote")]
        assert numpy.array_equal(*kept)
    # What a worker on a machine without these files would read.
    ray.init(address=cluster.address, log_to_driver=False)
    (path, *_) = sorted((tmp_path / "cache" / "decoded").glob("*/*.npy"))
    read = reader(ray, ray.get_runtime_context().get_node_id())
    assert read(path, 3, 50) == path.read_bytes()[3:53]
    ray.shutdown()


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


def test_a_driver_that_is_killed_goes_on_from_its_records(cluster, tmp_path):
    (tmp_path / "own.py").write_text(WAITS.format(go=tmp_path / "go"), encoding="utf-8")
    suite, results = suite_of(tmp_path, ONE + 'attack = ["fgsm", "own.py:Own"]\n'), tmp_path / "results"
    command = [sys.executable, "-m", "epsbench", "run", str(tmp_path / "suite.toml"), "--out", str(results),
               "--executor", "ray", "--device", "cpu", "--quiet"]  # fmt: skip
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: list(results.glob("cells/*.json")) or driver.poll() is not None)
        driver.kill()
    finally:
        driver.kill()
        driver.wait()
    (first,) = results.glob("cells/*.json")
    before = first.read_bytes(), first.stat().st_mtime_ns
    (tmp_path / "go").touch()
    code, records = run(suite, results, "ray")
    assert code in (0, 1)
    assert len(records) == 2
    assert {record.status for record in records.values()} == {"ok"}
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before


def test_a_node_that_dies_costs_its_work_and_no_record(cluster, ray, one_thread, tmp_path):
    extra = cluster.add_node(num_cpus=1, resources={"extra": 1}, **STORE)
    cluster.wait_for_nodes()
    mark = tmp_path / "mark"
    (tmp_path / "own.py").write_text(DIES_WITH.format(mark=mark, node=extra.node_id), encoding="utf-8")
    suite, results = suite_of(tmp_path, ONE + OWN_ATTACK), tmp_path / "results"
    killed: list[bool] = []

    def kill() -> None:
        wait_for(mark.exists)
        cluster.remove_node(extra, allow_graceful=False)
        killed.append(True)

    killer = threading.Thread(target=kill)
    killer.start()
    code, records = run(suite, results, "ray", batch_size=10, devices=3)
    killer.join(WITHIN)
    (record,) = records.values()
    assert (killed, record.status) == ([True], "ok")
    assert code in (0, 1)
    (alone,) = run(suite, tmp_path / "local", "local", batch_size=10)[1].values()
    assert (record.metrics, record.verdicts) == (alone.metrics, alone.verdicts)


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


def test_a_wheel_instead_of_a_checkout(ray, tmp_path):
    """Its workers, which a Ray of its own starts, find the wheel's package, too."""
    place = tmp_path / "place"
    root = Path(epsbench.__file__).parent
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir",
         str(tmp_path), str(root)], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place)
    (tmp_path / "own.py").write_text(FROM_WHEEL.format(place=place), encoding="utf-8")
    suite_of(tmp_path, ONE + OWN_ATTACK)
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-P", "-m", "epsbench", "run", "suite.toml", "--executor", "ray", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    (record,) = read_records(tmp_path / "results" / "suite")
    assert record.status == "ok", (record.failure, done.stderr)
