"""The number of threads: tried once, remembered, recorded, and put back; and threads that wait do not spin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from epsbench.harness.records import read_records
from epsbench.harness.run.machine import threads
from epsbench.harness.waiting import SETTINGS

CPU = torch.device("cpu")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in SETTINGS}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    yield tmp_path / "cache"
    torch.set_num_threads(before)


def work(milliseconds: Callable[[int], float], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A call that takes so long by the number of threads, on a clock of its own: a busy machine changes nothing."""
    now = [0.0]

    def call() -> None:
        now[0] += milliseconds(torch.get_num_threads()) / 1000

    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    return call


@pytest.mark.parametrize(
    ("milliseconds", "most", "wanted"),
    [
        (lambda n: 2 * n, 2, 1), (lambda n: 8 / n, 2, 2), (lambda n: 16 / n, 4, 4), (lambda n: 12 / min(n, 2), 8, 2),
        (lambda n: 12 / n, 3, 3),
    ],
)  # fmt: skip
def test_the_fastest_number_is_chosen(milliseconds, most, wanted, monkeypatch):
    before = torch.get_num_threads()
    assert threads.fastest(work(milliseconds, monkeypatch), most).threads == wanted
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("milliseconds", "most", "processes"),
    [
        (lambda n: 8, 2, 2), (lambda n: 8 / n, 2, 1), (lambda n: 8 / n**0.5, 2, 2), (lambda n: 8 / n**0.9, 2, 1),
        (lambda n: 12 / min(n, 2), 8, 4), (lambda n: 8, 64, threads.MOST_PROCESSES), (lambda n: 8, 1, 1),
    ],
)  # fmt: skip
def test_processes_are_chosen_where_threads_share_badly(milliseconds, most, processes, monkeypatch):
    """A process of k threads reaches nine tenths of its rate alone, and all have to be 15 % faster than one."""
    assert threads.fastest(work(milliseconds, monkeypatch), most).processes == processes


def test_a_choice_of_an_earlier_version_is_made_anew(cache):
    threads.use_fastest(lambda: time.sleep(0.003), CPU, 2, "one")
    (path,) = cache.rglob("*.json")
    whole = path.read_text()
    path.write_text('{"threads": 2}')
    assert threads.use_fastest(lambda: time.sleep(0.003), CPU, 2, "one") == 1
    assert set(json.loads(path.read_text())) == set(json.loads(whole)) == {"threads", "seconds", "processes"}


def test_a_choice_is_remembered_for_the_same_work_alone(cache):
    calls = []
    assert threads.use_fastest(lambda: calls.append(time.sleep(0.003)), CPU, 2, "one") == 1
    first = len(calls)
    assert threads.use_fastest(lambda: calls.append(1), CPU, 2, "one") == 1
    assert len(calls) == first
    threads.use_fastest(lambda: calls.append(time.sleep(0.003)), CPU, 2, "other")
    assert len(calls) > first
    for path in cache.rglob("*.json"):
        path.write_text("{broken")
    assert threads.use_fastest(lambda: calls.append(time.sleep(0.003)), CPU, 2, "one") == 1


def test_networks_of_one_shape_share_a_choice():
    def key(width: int, *numbers: int) -> str:
        return threads.shape_key(nn.Linear(width, 2), *numbers)

    assert key(3, 1) == key(3, 1)
    assert len({key(3, 1), key(4, 1), key(3, 2), threads.shape_key(lambda x: x, 1)}) == 4


def test_nothing_is_tried_where_the_number_is_given():
    torch.set_num_threads(1)
    assert threads.use_fastest(lambda: pytest.fail("tried"), CPU, 1, "one") == 1


SUITE = """
[robustness]
data = "digits"
training = { epochs = EPOCHS, batch_size = 64 }
matrix = { model = "smallcnn", attack = "fgsm", eps = 0.1 }
"""
RUN = """
import sys
from pathlib import Path
from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.runner import run_suite
import torch
from epsbench.harness.run.machine import threads
threads.fastest = lambda call, most: (call(), threads.Choice(1, 1.0))[1]
torch.set_num_threads(2)
number = int(sys.argv[3]) or None
code = run_suite(load_suite(sys.argv[1]), Path(sys.argv[2]), Options(quiet=True, device="cpu", threads=number))
print(code, torch.get_num_threads())
"""


@pytest.mark.parametrize(("given", "trained", "attacked"), [(0, 1, 2), (1, None, 1)])
def test_the_number_is_recorded_and_put_back(tmp_path, given, trained, attacked):
    (tmp_path / "tiny.toml").write_text(SUITE.replace("EPOCHS", "0" if given else "12"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "tiny.toml"), str(tmp_path / "out"), str(given)],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.stdout.split()[1:] == ["2"], done.stderr
    (record,) = read_records(tmp_path / "out")
    assert record.training.get("threads") == trained
    assert record.cost["threads"] == attacked
    assert record.environment["threads"] == (given or 2)


WAITING = """
import os, sys
import epsbench.harness.run
assert "torch" not in sys.modules
print(os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("environment", "policy"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "10"}, "None")],
)
def test_threads_wait_passively_unless_the_user_has_decided(environment, policy):
    done = subprocess.run(
        [sys.executable, "-c", WAITING], capture_output=True, text=True, check=False, env=ENVIRONMENT | environment
    )
    assert done.stdout.split() == [policy], done.stderr


def test_torch_that_is_loaded_is_left_alone():
    script = "import os, torch\nimport epsbench.harness.run\nprint(os.environ.get('OMP_WAIT_POLICY'))\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.stdout.split() == ["None"]


def test_a_cache_that_cannot_be_written_costs_a_trial_and_nothing_else(monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", "/dev/null/none")
    assert threads.use_fastest(work(lambda n: 2 * n, monkeypatch), CPU, 2, "one") == 1
    assert not Path("/dev/null/none").exists()
