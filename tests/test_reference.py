"""The reference runs: a suite that fails stops no other; a rerun measures what is missing; the end names it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from epsbench.harness import reference
from epsbench.harness.plan.suite import load_suite, shipped_suites
from epsbench.harness.records import read_records
from epsbench.harness.reference import State, main, run_all, run_command

ROOT = Path(__file__).parents[1]
TINY = """
[robustness]
data = "digits"
limit = 40
training = { epochs = 1, batch_size = 20 }
[robustness.matrix]
model = { name = "smallcnn", width = 2, hidden = 4 }
attack = "fgsm"
eps = 0.1
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


def in_makefile(name: str) -> list[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.search(rf"^{name} := (.*)$", text, flags=re.M).group(1).split()


@pytest.mark.slow
def test_a_broken_suite_stops_no_other_and_the_next_time_nothing_is_measured_again(tiny, tmp_path, capfd):
    out, broken = tmp_path / "out", tmp_path / "broken.toml"
    broken.write_text("[robustness]\ndata = 'mnits'\n", encoding="utf-8")
    assert main([str(broken), str(tiny), "--out", str(out)]) == 1
    output = capfd.readouterr().out
    assert "unknown data set 'mnits'" in output
    assert f"{tiny}: complete, 1 cell" in output
    (record,) = read_records(out / "tiny")
    assert len(list((out / ".weights").glob("*.safetensors"))) == 1
    assert (out / "report.html").is_file()
    assert main([str(tiny), "--out", str(out)]) == 0
    assert read_records(out / "tiny") == [record]


def test_what_is_missing_is_counted(tiny, tmp_path):
    (state,) = run_all([str(tiny)], tmp_path, lambda command: -9, lambda line: None)
    assert not state.complete
    assert state.line() == f"{tiny}: 1 of 1 cell missing"
    assert State("s", 9, 4, 2, 3).line() == "s: 5 of 9 cells missing, 3 failed, 2 void"


def test_an_interruption_ends_the_whole_and_a_death_does_not(tiny, tmp_path):
    codes, ran = iter([-9, 1, reference.INTERRUPTED, 0]), []

    def run(command):
        ran.append(command[-5])
        return next(codes)

    states = run_all([str(tiny)] * 4, tmp_path, run, lambda line: None)
    assert len(ran) == 3
    assert len(states) == 4


@pytest.mark.parametrize(("gpu", "ran"), [("sys.exit(0)", ["a", "b"]), ("sys.exit(1)", ["a"])])
def test_suites_for_a_gpu_run_only_where_there_is_one(monkeypatch, capsys, tmp_path, gpu, ran):
    seen = []
    monkeypatch.setattr(reference, "HAS_GPU", f"import sys; {gpu}")
    monkeypatch.setattr(reference, "run_command", lambda command, quiet=False: seen.append(command[4]) or 0)
    main(["a", "--gpu", "b", "--out", str(tmp_path)])
    assert seen == ran
    assert ("left for a machine with a GPU: b" in capsys.readouterr().out) == (ran == ["a"])


def test_what_ends_the_runs_ends_the_suite_under_way(tmp_path):
    child = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(130)); print('up', flush=True); time.sleep(30)"
    )
    parent = (
        "import sys; from epsbench.harness.reference import run_command;"
        f"sys.exit(run_command([sys.executable, '-c', {child!r}]))"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=ROOT, env=os.environ) as process:
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == reference.INTERRUPTED


def test_the_exit_code_is_the_commands():
    assert run_command([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_the_makefile_names_shipped_suites_each_once():
    named = [*in_makefile("REFERENCE"), *in_makefile("REFERENCE_GPU")]
    assert len(set(named)) == len(named)
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if re.match(r"\| \[?`[a-z0-9-]+`.* \|", line) and "SUITE" not in line]
    names = [name for line in listed for name in re.findall("`([^`]+)`", line.split("|")[1])]
    suites = [name for name in names if name in shipped_suites()]
    assert sorted(suites) == sorted(shipped_suites())  # the README has a line for each
    assert set(named) == set(suites) - {"vae-cifar10", *suites[-3:]}


def test_the_large_suites_share_models():
    suites = [load_suite(name) for name in ("random-vs-fgsm", "augmentation", "defenses")]
    noise, augmented, defended = ({cell.weights_key for cell in suite.cells} for suite in suites)
    assert noise < defended
    assert len(augmented & defended) == 3  # the undefended model's seeds
