"""Attacks split over several processes: the records of one process, whoever dies, stops or is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import WITHIN, run, suite_of, wait_for

from epsbench.harness.errors import InputError
from epsbench.harness.options import INTERRUPTED
from epsbench.harness.records import Record
from epsbench.harness.run.executors.processes import devices_of
from epsbench.harness.run.machine.threads import Choice
from epsbench.harness.run.robustness import attacker, shards
from epsbench.harness.run.robustness.job import Bench
from epsbench.harness.run.robustness.kept_shards import KeptShards

SUITE = """
[robustness]
data = "digits"
[robustness.training]
epochs = 4
learning_rate = 4e-3
[robustness.matrix]
model = "smallcnn"
attack = { name = "pgd", steps = 3, restarts = 2, random_start = true }
eps = [0.05, 0.2]
[[robustness.include]]
model = "smallcnn"
attack = { name = "ddn", steps = 4 }
norm = "l2"
eps = 0.3
[[robustness.include]]
model = "smallcnn"
attack = { name = "ensemble", parts = [{ name = "apgd", steps = 3 }, { name = "square", steps = 6 }] }
eps = 0.1
[[robustness.include]]
model = "smallcnn"
attack = "fgsm"
eps = 0.1
corruption = "gaussian-noise"
severity = 2
"""
ONE = """
[robustness]
data = "digits"
training = { epochs = 0 }
[robustness.matrix]
model = "smallcnn"
attack = ATTACK
eps = 0.1
"""
OWN = """
import os
from dataclasses import dataclass
from pathlib import Path
from epsbench.attacks.base import GradientAttack

@dataclass(frozen=True, kw_only=True)
class Own(GradientAttack):
    steps: int = 2
    def update(self, x_adv, gradient, eps, step):
        if os.getpid() != int(os.environ["OWNER"]):
            BODY
        return x_adv + eps * gradient.sign()
"""
ONCE = 'if not (mark := Path(os.environ["MARK"])).exists(): mark.touch(); os._exit(9)'


@pytest.fixture
def helpers_first(monkeypatch):
    """Let the others begin: this process would be done before they have loaded torch."""
    run_here = shards._Evaluation.run

    def run_later(self):
        with self.changed:
            assert self.changed.wait_for(lambda: self.shares.done or self.error is not None, WITHIN)
        run_here(self)

    monkeypatch.setattr(shards._Evaluation, "run", run_later)


def assert_same(ours: dict[str, Record], theirs: dict[str, Record]) -> None:
    """Every number but times, and every finding, is the same."""
    assert set(ours) == set(theirs)
    counts = ("forwards", "backwards", "shared_backwards", "judge_forwards", "attacked", "gradients_per_image")
    for identity, record in ours.items():
        other = theirs[identity]
        assert (record.status, record.metrics, record.verdicts) == (other.status, other.metrics, other.verdicts)
        assert (record.distances, record.adapted) == (other.distances, other.adapted)
        assert [record.cost[name] for name in counts] == [other.cost[name] for name in counts]
        assert record.cost.get("radii_of_run") == other.cost.get("radii_of_run")
        assert {each.code: each.message for each in record.findings} == {
            each.code: each.message for each in other.findings
        }
        for our, their in zip(record.parts, other.parts, strict=True):
            assert (our.name, our.robust_accuracy, our.fooled) == (their.name, their.robust_accuracy, their.fooled)
            assert {k: v for k, v in our.cost.items() if k != "seconds"} == {
                k: v for k, v in their.cost.items() if k != "seconds"
            }


def test_two_processes_give_the_records_of_one(tmp_path, helpers_first):
    suite = suite_of(tmp_path, SUITE)
    code, alone = run(suite, tmp_path / "one", batch_size=16, threads=1)
    weights = tmp_path / "one" / "weights"
    both_code, both = run(suite, tmp_path / "two", batch_size=16, threads=1, devices=2, weights=weights)
    assert (code, both_code) == (0, 0)
    assert_same(both, alone)
    assert len(alone) == 5
    for record in both.values():
        assert sum(shard.images for shard in record.shards) == record.cost["attacked"]
        assert len(record.shards) > 1
        assert record.cost["seconds"] > 0
    assert not any(record.shards for record in alone.values())
    assert not list((tmp_path / "two" / "partial").glob("shards-*"))


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (ONCE, "ok", ""),
        ("os._exit(9)", "failed", "helps with the attack ended (exit code 9)"),
        ('raise ValueError("only there")', "failed", "only there"),
        ("raise SystemExit(3)", "failed", "3"),
    ],
    ids=["dies-once", "dies-always", "raises", "exits"],
)
def test_what_happens_to_another_process_happens_to_its_images_only(
    tmp_path, monkeypatch, helpers_first, body, status, message
):
    (tmp_path / "own.py").write_text(OWN.replace("BODY", body), encoding="utf-8")
    monkeypatch.setenv("OWNER", str(os.getpid()))
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    suite = suite_of(tmp_path, ONE.replace("ATTACK", '"own.py:Own"'))
    _, records = run(suite, tmp_path / "two", batch_size=8, devices=2)
    (record,) = records.values()
    assert record.status == status
    assert message in (record.failure.message if record.failure else "")
    if status == "ok":
        assert_same(records, run(suite, tmp_path / "one", batch_size=8)[1])


def test_what_was_attacked_before_a_stop_is_not_attacked_again(tmp_path, monkeypatch):
    suite, results = suite_of(tmp_path, ONE.replace("ATTACK", '{ name = "pgd", steps = 2 }')), tmp_path / "two"
    alone = run(suite, tmp_path / "one", batch_size=4)[1]
    save = KeptShards.save

    def stop(self, shard):
        save(self, shard)
        raise KeyboardInterrupt

    monkeypatch.setattr(KeptShards, "save", stop)
    code, records = run(suite, results, batch_size=4, devices=2)
    assert (code, records) == (INTERRUPTED, {})
    (kept,) = (results / "partial").glob("shards-*/*.npz")
    begin, end = (int(part) for part in kept.stem.split("-"))
    monkeypatch.undo()
    attacked: list[tuple[int, int]] = []
    attack_with = shards.attack_with

    def noted(engine, stream, first, device):
        attacked.append((first, first + len(engine.targets)))
        return attack_with(engine, stream, first, device)

    monkeypatch.setattr(shards, "attack_with", noted)
    code, records = run(suite, results, batch_size=4)  # without helpers as well
    assert code in (0, 1)
    assert_same(records, alone)
    assert attacked
    assert all(last <= begin or first >= end for first, last in attacked)
    assert not kept.parent.exists()


@pytest.mark.parametrize("damage", [b"torn", None])
def test_kept_images_of_other_weights_or_damaged_ones_are_attacked_again(tmp_path, monkeypatch, damage):
    suite, results = suite_of(tmp_path, ONE.replace("ATTACK", '{ name = "pgd", steps = 2 }')), tmp_path / "two"
    alone = run(suite, tmp_path / "one", batch_size=4)[1]
    monkeypatch.setattr(KeptShards, "drop", lambda self: None)
    run(suite, results, batch_size=4, devices=2)
    for kept in (results / "partial").glob("shards-*/*.npz"):
        if damage:
            kept.write_bytes(damage)
    if not damage:
        monkeypatch.setattr(Bench, "_weights", lambda self, attacker: "others")
    for record in (results / "cells").iterdir():
        record.unlink()
    attacked = []
    attack_with = shards.attack_with
    monkeypatch.setattr(
        shards, "attack_with", lambda *given: attacked.append(len(given[0].targets)) or attack_with(*given)
    )
    assert_same(run(suite, results, batch_size=4)[1], alone)
    assert sum(attacked) == next(iter(alone.values())).cost["attacked"]


@pytest.fixture
def shared_cores(monkeypatch):
    """As on a CPU of two cores where threads share badly, before long work."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(attacker, "LONG", 0)
    monkeypatch.setattr(attacker, "WORTH_PROCESSES", 0.0)
    monkeypatch.setattr(attacker, "chosen", lambda call, most, key: Choice(1, 1.0, most))
    yield
    torch.set_num_threads(before)


def test_cores_are_shared_by_processes_where_that_is_faster(tmp_path, shared_cores, helpers_first):
    suite = suite_of(tmp_path, SUITE)
    _, both = run(suite, tmp_path / "two", batch_size=16)
    torch.set_num_threads(1)
    weights = tmp_path / "two" / "weights"
    _, alone = run(suite, tmp_path / "one", batch_size=16, threads=1, weights=weights)
    assert_same(both, alone)
    assert {len(record.shards) > 1 for record in both.values()} == {True}
    assert {len(record.shards) for record in alone.values()} == {0}


def test_a_process_that_nobody_asked_for_and_that_ends_costs_speed_alone(tmp_path, shared_cores, monkeypatch):
    monkeypatch.setenv("OWNER", str(os.getpid()))
    (tmp_path / "own.py").write_text(OWN.replace("BODY", "os._exit(9)"), encoding="utf-8")
    suite = suite_of(tmp_path, ONE.replace("ATTACK", '"own.py:Own"'))
    run_here = shards._Evaluation.run

    def run_later(self):
        with self.changed:
            assert self.changed.wait_for(lambda: self.engine.victim.findings, WITHIN)
        run_here(self)

    monkeypatch.setattr(shards._Evaluation, "run", run_later)
    _, records = run(suite, tmp_path / "results", batch_size=16)
    (record,) = records.values()
    (finding,) = (each for each in record.findings if each.code == "attacked-alone")
    assert (record.status, finding.severity) == ("ok", "warning")
    assert "exit code 9" in finding.message
    (alone,) = run(suite, tmp_path / "one", batch_size=16, threads=1)[1].values()
    assert record.verdicts == alone.verdicts


def children(process: int) -> list[int]:
    return [int(each) for path in Path(f"/proc/{process}/task").glob("*/children") for each in path.read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_a_run_that_is_killed_leaves_no_process_and_goes_on_from_its_images(tmp_path):
    results, go = tmp_path / "results", tmp_path / "go"
    body = f"while list(Path('{results}').glob('partial/*/*.npz')) and not Path('{go}').exists(): time.sleep(0.02)"
    text = OWN.replace('if os.getpid() != int(os.environ["OWNER"]):', "if True:").replace("BODY", body)
    (tmp_path / "own.py").write_text(f"import time\n{text}", encoding="utf-8")
    suite = suite_of(tmp_path, ONE.replace("ATTACK", '"own.py:Own"'))
    command = [sys.executable, "-m", "epsbench", "run", str(tmp_path / "small.toml"), "--limit", "200", "--out",
               str(results), "--devices", "2", "--batch-size", "4", "--quiet", "--device", "cpu"]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: list(results.glob("partial/shards-*/*.npz")) or process.poll() is not None)
        helpers = children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert len(helpers) == 1
    kept = list(results.glob("partial/shards-*/*.npz"))
    assert kept
    assert not list(results.glob("cells/*.json"))
    go.touch()
    wait_for(lambda: not any(map(alive, helpers)))
    _, records = run(suite, results, batch_size=4)
    assert_same(records, run(suite, tmp_path / "one", batch_size=4)[1])
    (record,) = records.values()
    sizes = [shard.images for shard in record.shards]
    assert sum(sizes) == record.cost["attacked"]
    assert len(sizes) > len(kept)


def test_more_gpus_than_there_are_is_one_message(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of(torch.device("cuda"), 2) == [torch.device("cuda", 0), torch.device("cuda", 1)]
    with pytest.raises(InputError, match="--devices 3: there are 2 GPUs from cuda:1 on; give --devices 2"):
        devices_of(torch.device("cuda:1"), 3)
    assert devices_of(torch.device("cpu"), 2) == [torch.device("cpu")] * 2
