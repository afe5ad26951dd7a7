"""Without units for a precision, networks train, are evaluated and are attacked in float32, and records say so."""

from __future__ import annotations

import pytest
import torch
from small import GENERATION, run, suite_of

from epsbench.harness.run.context import Context
from epsbench.harness.run.machine import precision
from epsbench.harness.run.machine.precision import has_units, times_as_long

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SUITE = """
[robustness]
data = "digits"
precision = "bf16"
training = { epochs = 1, batch_size = 50 }
[robustness.matrix]
model = "smallcnn"
attack = ["fgsm"]
eps = 0.1
""" + GENERATION.replace('data = "digits"', 'data = "digits"\nprecision = "bf16"')


def emulated(monkeypatch, times: float) -> None:
    monkeypatch.setattr(precision, "times_as_long", lambda name: 1.0 if name == "float32" else times)


@pytest.mark.parametrize(("times", "computed"), [(14.0, "float32"), (3.5, "float32"), (2.5, "bf16"), (0.5, "bf16")])
def test_a_cpu_without_units_computes_in_float32(tmp_path, monkeypatch, times, computed):
    emulated(monkeypatch, times)
    context = Context(tmp_path, tmp_path, CPU, "suite", tmp_path)
    assert context.precision("bf16") == computed
    assert [each.code for each in context.precision_findings("bf16")] == ["not-mixed"] * (computed == "float32")
    for never_low in ("auto", "float32"):
        assert context.precision(never_low) == "float32"
        assert context.precision_findings(never_low) == []


@pytest.mark.parametrize("units", [True, False])
def test_a_gpu_is_asked_for_its_units(tmp_path, monkeypatch, units):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation) or units
    )
    context = Context(tmp_path, tmp_path, CUDA, "suite", tmp_path)
    for wanted in ("bf16", "auto"):
        assert context.precision(wanted) == ("bf16" if units else "float32")
    assert asked == [False, False]
    assert context.precision("fp16") == "fp16"  # all that PyTorch supports have them
    assert context.precision_findings("auto") == []
    assert bool(context.precision_findings("bf16")) is not units


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_the_same_work_is_timed_in_both_precisions(monkeypatch, name):
    took = {precision.DTYPES[name]: 3.0, torch.float32: 2.0}
    noise = iter([9.0, 0.0, 1.0, 0.0, 9.0, 9.0])  # of other work on the machine: the shortest of three calls counts
    monkeypatch.setattr(
        precision, "seconds", lambda call, device, repeats: (call(), took[call.args[0]] + next(noise))[1]
    )
    times_as_long.cache_clear()
    try:
        with torch.inference_mode():  # in which nothing has a gradient
            assert times_as_long(name) == 1.5
        assert times_as_long("float32") == 1.0
        assert has_units(CPU, name)
    finally:
        times_as_long.cache_clear()


def test_records_say_so_and_are_those_of_float32(tmp_path, monkeypatch):
    emulated(monkeypatch, 14.0)
    code, low = run(suite_of(tmp_path, SUITE), tmp_path / "low")
    same, full = run(suite_of(tmp_path, SUITE.replace("bf16", "float32")), tmp_path / "full")
    assert (code, same, len(low)) == (0, 0, 2)
    for one, other in zip(*(sorted(each.values(), key=lambda r: r.cell["task"]) for each in (low, full)), strict=True):
        assert (one.cell["precision"], one.training["precision"], one.cost["precision"]) == (
            "bf16",
            "float32",
            "float32",
        )
        assert one.metrics == other.metrics
        assert one.training["weights_sha256"] == other.training["weights_sha256"]
        first, *others = one.findings
        assert (first.code, first.severity, first.evidence) == ("not-mixed", "warning", {})
        assert "no units for bf16" in first.message
        assert others == list(other.findings)
