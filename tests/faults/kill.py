"""SIGKILL at random moments over a suite, again and again: ``python tests/faults/kill.py [KILLS] [SEED]``.

A run is started, killed, and started again until its suite is complete; then its records are compared with those of
a run that nobody killed, and the next round begins in an empty folder. Exit code 0: nothing finished was lost or
changed, no file was torn, and no verdict differs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from epsbench.harness.records import read_pictures, read_records

SUITE = """
[robustness]
data = "digits"
[robustness.training]
epochs = 8
[robustness.matrix]
model = "smallcnn"
defense = ["none", "fgsm-loss"]
attack = ["noise", "fgsm", { name = "pgd", steps = 10, restarts = 2, random_start = true }]
eps = [0.05, 0.1, 0.2]
seed = [0, 1]
"""
RUN = """
import sys
from pathlib import Path
from epsbench.harness.options import Options
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.runner import run_suite
from epsbench.harness.plan.suite import load_suite
Checkpoint.due = lambda self: True  # after every epoch, so that kills meet one being written
suite = load_suite(sys.argv[1])
print("ready", flush=True)
sys.exit(run_suite(suite, Path(sys.argv[2]), Options(quiet=True, device="cpu")))
"""


def start(suite: Path, results: Path) -> subprocess.Popen[bytes]:
    """A run, at the moment when it has imported everything and begins."""
    command = [sys.executable, "-c", RUN, str(suite), str(results)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def contents(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (results / "cells").glob("*.json")}


def verdicts(results: Path) -> dict[str, object]:
    return {record.id: record.verdicts for record in read_records(results)}


def main(kills: int, seed: int) -> int:
    rng, counts = np.random.default_rng(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "killed.toml"
        suite.write_text(SUITE, encoding="utf-8")
        began = time.perf_counter()
        assert start(suite, Path(folder) / "whole").wait() == 0
        length = time.perf_counter() - began
        expected = verdicts(Path(folder) / "whole")
        results, recorded = Path(folder) / "round-0", dict[str, bytes]()
        while counts["kills"] < kills:
            process = start(suite, results)
            try:
                code = process.wait(rng.uniform(0, length / 3))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                counts["kills"] += 1
                on_disk = contents(results)
                counts["records lost or changed"] += sum(on_disk.get(name) != old for name, old in recorded.items())
                counts["killed before the first record"] += not on_disk
                counts["killed between two records"] += bool(on_disk)
                counts["killed while a training was under way"] += bool(list(results.rglob("*.checkpoint")))
                for record in read_records(results):  # raises when one is torn
                    read_pictures(results, record)
                    counts["records read after a kill"] += 1
                recorded = on_disk
                continue
            counts["rounds completed"] += 1
            counts["rounds that ended with an error"] += code != 0
            counts["verdicts that differ"] += verdicts(results) != expected
            results, recorded = Path(folder) / f"round-{counts['rounds completed']}", {}
        if results.exists():
            counts["rounds that ended with an error"] += start(suite, results).wait() != 0
            final = contents(results)
            counts["records lost or changed"] += sum(final.get(name) != old for name, old in recorded.items())
            counts["verdicts that differ"] += verdicts(results) != expected
            counts["rounds completed"] += 1
        counts["temporary files left behind"] = len(list(Path(folder).rglob("*.tmp")))
    for name, count in counts.items():
        sys.stdout.write(f"{count:6d}  {name}\n")
    bad = ("records lost or changed", "rounds that ended with an error", "verdicts that differ")
    return int(any(counts[name] for name in bad))


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*given, *[50, 0][len(given) :]))
