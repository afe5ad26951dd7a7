"""Jobs on Ray: the records of the local executor, and a worker that dies takes only its own cells with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from ray_bench import (
    DATA,
    DEADLY,
    DIES_WITH,
    FROM_WHEEL,
    ONE,
    OUTSIDE,
    OWN,
    OWN_ATTACK,
    STORE,
    SUITE,
    WAITS,
    Reports,
    run,
    suite_of,
)
from small import WITHIN, wait_for

import epsbench
from epsbench.harness.errors import InputError
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import Record, images_path, read_records
from epsbench.harness.run.context import Context
from epsbench.harness.run.executors import ray as executor
from epsbench.harness.run.executors.ray_files import reader
from epsbench.harness.run.executors.ray_progress import start_board


@pytest.fixture
def one_thread():
    """As many threads as Ray gives a task of one core: then training rounds alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
