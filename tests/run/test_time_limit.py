"""A run with a time limit: the cheapest first, a clean stop, and the same command goes on from there."""

from __future__ import annotations

import signal
import threading

import pytest
from small import run, suite_of

from epsbench.harness import measuring
from epsbench.harness.options import TIME_IS_UP, Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run import jobs, runner
from epsbench.harness.run.runner import run_suite

TWO = """
[robustness]
data = "digits"
training = { epochs = 0 }
[robustness.matrix]
model = "smallcnn"
attack = [{ name = "mi-fgsm", steps = STEPS }, "fgsm"]
eps = 0.1
"""


def test_the_cheapest_are_measured_and_what_is_missing_is_said(tmp_path, capsys, monkeypatch):
    suite, results = suite_of(tmp_path, TWO.replace("STEPS", "100_000")), tmp_path / "results"
    original = jobs.write_record

    def then_half_a_second(folder, record):
        """However slow the machine is, the limit passes when one cell is recorded and the other one is under way."""
        written = original(folder, record)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        return written

    monkeypatch.setattr(jobs, "write_record", then_half_a_second)
    code = run_suite(suite, results, Options(quiet=True, device="cpu", time_limit=600))
    assert code == TIME_IS_UP
    assert [record.cell["attack"]["name"] for record in read_records(results)] == ["fgsm"]
    error = capsys.readouterr().err
    assert "time is up after 10 min: 1 of 2 cells are recorded in" in error
    assert "missing: 1 of smallcnn none none · mi-fgsm(steps=100000) linf" in error
    assert "the same command goes on from there" in error
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_run_that_ends_in_time_ends_as_any_other(tmp_path):
    suite = suite_of(tmp_path, TWO.replace("STEPS", "2"))
    code, records = run(suite, tmp_path / "results", time_limit=300)
    assert code in (0, 1)
    assert len(records) == 2


def test_outside_the_main_thread_the_run_stops_after_a_cell(tmp_path, monkeypatch):
    suite, results, codes = suite_of(tmp_path, TWO.replace("STEPS", "2")), tmp_path / "results", []
    work = threading.Thread(
        target=lambda: codes.append(run_suite(suite, results, Options(quiet=True, device="cpu", time_limit=1e-6)))
    )
    work.start()
    work.join()
    assert codes == [TIME_IS_UP]
    assert len(read_records(results)) == 1
    assert run(suite, results)[0] in (0, 1)
    assert len(read_records(results)) == 2


def test_the_time_passes_while_a_record_is_written_and_nothing_is_lost(tmp_path, monkeypatch):
    suite, results = suite_of(tmp_path, TWO.replace("STEPS", "2")), tmp_path / "results"
    original = jobs.write_record

    def late(folder, record):
        written = original(folder, record)
        raise runner.TimeIsUpError
        return written

    monkeypatch.setattr(jobs, "write_record", late)
    assert run_suite(suite, results, Options(quiet=True, device="cpu", time_limit=100)) == TIME_IS_UP
    monkeypatch.undo()
    assert len(read_records(results)) == 1
    assert run(suite, results)[0] in (0, 1)


@pytest.mark.parametrize("count", [1, 8])
def test_a_long_list_of_what_is_missing_is_shortened(tmp_path, count):
    eps = 'attack = ["noise", ' + ", ".join(f'{{ name = "pgd", steps = {n + 2} }}' for n in range(count)) + "]"
    suite = suite_of(tmp_path, TWO.replace('attack = [{ name = "mi-fgsm", steps = STEPS }, "fgsm"]', eps))
    text = runner._missing(suite.cells)
    assert text.startswith("1 of smallcnn none none · noise linf")
    assert ("and 4 others" in text) == (count == 8)


def test_a_time_limit_that_ends_before_the_first_cell_says_so_once(tmp_path, monkeypatch):
    suite, options = load_suite("quickstart"), Options(time_limit=1.0)
    monkeypatch.setattr(runner, "run_suite", lambda *given: TIME_IS_UP)
    shown: list[str] = []
    assert measuring.measure(suite, tmp_path / "out", options, tmp_path / "a.npz", shown.append) == TIME_IS_UP
    assert shown == []
