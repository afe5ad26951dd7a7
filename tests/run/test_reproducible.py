"""Two runs of a suite give the same numbers, and the record names what could make them differ."""

from __future__ import annotations

import re
import subprocess
import sys

import torch
from small import QUIET, verdicts

from epsbench.harness.records import read_records
from epsbench.harness.run.machine.environment import arithmetic, arithmetic_flags
from epsbench.harness.run.runner import run_suite


def test_the_same_suite_twice_gives_the_same_verdicts(suite, tmp_path):
    """Trained and attacked anew in float32, nothing shared."""
    for name in ("first", "second"):
        assert run_suite(suite, tmp_path / name, QUIET) == 0
    assert verdicts(tmp_path / "first") == verdicts(tmp_path / "second")
    digests = {r.training["weights_sha256"] for n in ("first", "second") for r in read_records(tmp_path / n)}
    assert len(digests) == 1


def test_float32_is_float32_and_the_record_says_so(suite, tmp_path):
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert run_suite(suite, tmp_path / "results", QUIET) == 0
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before[2])
    assert (cudnn.allow_tf32, cudnn.deterministic, torch.get_float32_matmul_precision()) == before
    for record in read_records(tmp_path / "results"):
        assert record.environment["flags"]["matmul_precision"] == "highest"
        assert record.environment["flags"]["cudnn_tf32"] is False
        assert record.environment["flags"]["cudnn_deterministic"] is True
        assert record.environment["not_deterministic"] == []


def test_what_is_not_deterministic_on_a_gpu_is_named():
    with arithmetic("bf16"):
        reasons = arithmetic_flags(torch.device("cuda"))["not_deterministic"]
    assert any("algorithms" in reason for reason in reasons)
    with arithmetic("float32"):
        reasons = arithmetic_flags(torch.device("cuda"))["not_deterministic"]
    assert all("atomically" in reason for reason in reasons)


def test_the_newer_switches_do_not_stop_a_run():
    script = (
        "import torch; from epsbench.harness.run.machine.environment import arithmetic, arithmetic_flags\n"
        "torch.backends.cudnn.conv.fp32_precision = 'tf32'\n"
        "with arithmetic('float32'):\n"
        "    assert torch.backends.cudnn.conv.fp32_precision != 'tf32'\n"
        "    assert arithmetic_flags(torch.device('cpu'))['flags']['cudnn_tf32'] is False\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search("Warning", done.stderr)
