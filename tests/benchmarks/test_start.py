"""What the verbs that only read cost in a fresh process, beside the import of NumPy as a measure of the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import numpy"),
        ("-c", "import epsbench"),
        ("-m", "epsbench", "--help"),
        ("-m", "epsbench", "list"),
        ("-m", "epsbench", "plan", "mnist", "--out", "not-there"),
    ],
    ids=["import-numpy", "import-epsbench", "help", "list", "plan"],
)
def test_start(benchmark, arguments):
    def run() -> int:
        return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True).returncode

    assert benchmark.pedantic(run, rounds=3) == 0
