"""Runs in odd places and under tight limits: a folder that moves, names of all kinds, few files, no threads."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small import GENERATION, TINY, run, suite_of

from epsbench.harness import files
from epsbench.harness.errors import InputError
from epsbench.harness.options import INTERRUPTED, Options
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import read_records, record_path
from epsbench.harness.report.build import report
from epsbench.harness.report.gates.check import check_suite
from epsbench.harness.report.gates.compare import compare
from epsbench.harness.run import jobs, runner, verify
from epsbench.harness.run.context import Context, NoBoard
from epsbench.harness.run.generative import features
from epsbench.harness.run.machine import lock
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training import trained
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.loop import Course

QUIET = Options(quiet=True, device="cpu")


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return suite_of(tmp_path, TINY)


def after(monkeypatch: pytest.MonkeyPatch, module: object, name: str, act: Callable[[], object]) -> None:
    """From now on, ``act`` follows the first call of this function."""
    original, calls = getattr(module, name), []

    def called(*arguments: object, **options: object) -> object:
        result = original(*arguments, **options)
        calls.append(name)
        if len(calls) == 1:
            act()
        return result

    monkeypatch.setattr(module, name, called)


@pytest.mark.parametrize(("module", "name", "kept"), [(jobs, "write_record", 1), (trained, "build", 0)])
def test_a_folder_that_is_moved_stops_the_run_and_no_other_takes_its_place(
    suite, tmp_path, monkeypatch, module, name, kept
):
    results, moved = tmp_path / "results", tmp_path / "moved"
    with monkeypatch.context() as patched:
        after(patched, module, name, lambda: results.rename(moved))
        with pytest.raises(InputError, match=r"results: was moved or deleted while this run .* move it back"):
            run_suite(suite, results, QUIET)
    assert not results.exists()
    assert len(read_records(moved)) == kept
    moved.rename(results)
    assert run_suite(suite, results, QUIET) == 0
    assert len(read_records(results)) == len(suite.cells)


@pytest.mark.parametrize(
    ("text", "module", "name"),
    [
        (TINY, Course, "_epoch"),  # then a checkpoint is due
        (GENERATION, Course, "_epoch"),
        (GENERATION, features, "seeded"),  # then the lock of the network that makes features is made
        (GENERATION, features, "train_classifier"),  # then that network is kept
    ],
)
def test_nothing_is_written_where_the_folder_was(tmp_path, monkeypatch, text, module, name):
    suite = suite_of(tmp_path, text)
    results, moved = tmp_path / "results", tmp_path / "moved"
    monkeypatch.setattr(Checkpoint.__init__, "__defaults__", (0.0,))
    monkeypatch.setattr(Context, "board", lambda self, key: NoBoard())  # TensorBoard's thread may raise afterwards
    after(monkeypatch, module, name, lambda: results.rename(moved))
    with pytest.raises(InputError, match="was moved or deleted while this run"):
        run_suite(suite, results, QUIET)
    assert not results.exists()


def test_a_folder_of_weights_elsewhere_is_not_the_results_folder(tmp_path):
    results, weights = tmp_path / "results", tmp_path / "weights"
    results.mkdir()
    with lock.only_run(results):
        results.rename(tmp_path / "moved")
        files.keep(weights / "a.safetensors", b"weights")
        with pytest.raises(InputError, match="was moved or deleted"):
            files.keep(results / "weights" / "a.safetensors", b"weights")
    assert not results.exists()


def test_another_folder_in_its_place_stops_the_run_too(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    with lock.only_run(results):
        files.require_in_place(results)
        results.rename(tmp_path / "moved")
        results.mkdir()
        with pytest.raises(InputError, match="was moved or deleted"):
            files.require_in_place(results)
    files.require_in_place(results)  # which this process does not hold any more


def test_a_file_system_that_numbers_folders_anew_stops_nothing(tmp_path, monkeypatch):
    with lock.only_run(tmp_path):
        monkeypatch.setattr("os.path.samestat", lambda one, other: False)
        files.require_in_place(tmp_path)


def test_records_that_vanish_during_a_run_are_no_success(suite, tmp_path, monkeypatch):
    results = tmp_path / "results"
    gone = record_path(results, suite.cells[0].id)
    with monkeypatch.context() as patched:
        after(patched, jobs, "write_record", gone.unlink)
        with pytest.raises(InputError, match="1 of the 4 records that this run wrote are not there any more"):
            run_suite(suite, results, QUIET)
    assert len(plan(suite, results).pending) == 1


def test_spaces_line_breaks_foreign_letters_and_symbolic_links_in_a_path(suite, tmp_path):
    real = tmp_path / "sp ace" / "ünïcødé 日本\nβ [bold] %s"
    (real / "elsewhere").mkdir(parents=True)
    results = tmp_path / "link"
    results.symlink_to(real)
    (real / "cells").symlink_to("elsewhere")
    (real / "weights").mkdir()
    key = suite.cells[0].weights_key
    (real / "weights" / f".{key}.lock").write_text("of a process that was killed")
    (real / ".lock").write_text("process 1 on another machine")
    assert run(suite, results)[0] == 0
    assert "smallcnn keeps" in report(real, "text")
    assert compare(real, results)[0] == 0
    assert verify.verify(suite, results, QUIET, 1, lambda line: None) == 0
    assert (real / "cells").is_symlink()


VERBS = {
    "plan": lambda suite, results: plan(suite, results),
    "run": lambda suite, results: run_suite(suite, results, QUIET),
    "report": lambda suite, results: report(results, "text"),
    "compare": lambda suite, results: compare(results, results),
    "check": lambda suite, results: check_suite(suite, results),
    "verify": lambda suite, results: verify.verify(suite, results, QUIET, 1, lambda line: None),
    "weights": lambda suite, results: run_suite(
        suite, suite.base / "results", Options(quiet=True, device="cpu", weights=results)
    ),
    "suite": lambda suite, results: load_suite(str(results)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_that_is_too_long_is_one_message(tmp_path, verb):
    suite = suite_of(tmp_path, TINY + "[[robustness.expect]]\nclean_accuracy = { min = 0 }\n")
    with pytest.raises(InputError) as refused:
        VERBS[verb](suite, tmp_path / ("x" * 300))
    (message,) = refused.value.messages
    assert "File name too long" in message


def test_a_loop_of_links_is_no_results_folder(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="loop: no such results folder"):
        report(tmp_path / "loop", "text")


@contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_a_limit_on_the_size_of_files_is_named(suite, tmp_path):
    with limited(resource.RLIMIT_FSIZE, 10_000), pytest.raises(InputError) as stopped:
        run_suite(suite, tmp_path / "results", QUIET)
    (message,) = stopped.value.messages
    assert "File too large" in message
    assert "raise the limit (`ulimit -f`), or give another folder with --weights" in message
    assert not list((tmp_path / "results").rglob("*.tmp"))
    assert run_suite(suite, tmp_path / "results", QUIET) == 0


def test_a_run_needs_few_open_files(suite, tmp_path):
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    with limited(resource.RLIMIT_NOFILE, highest + 16):
        assert run_suite(suite, tmp_path / "results", QUIET) == 0


def test_where_no_thread_can_start_only_the_curves_for_tensorboard_are_missing(suite, tmp_path, monkeypatch, capsys):
    def full(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    assert run_suite(suite, tmp_path / "results", QUIET) == 0
    assert "no curves for TensorBoard (RuntimeError: can't start new thread)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_before_the_first_training_stops_the_run_too(suite, tmp_path, monkeypatch, capsys, name):
    number = getattr(signal, name)
    usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    before = signal.signal(number, usual)  # in the background, or under nohup, the tests start with it ignored
    monkeypatch.setattr(runner, "preflight", lambda jobs, context: os.kill(os.getpid(), number))
    try:
        assert run_suite(suite, tmp_path / "results", QUIET) == INTERRUPTED
        assert "stopped: 0 of 4 cells are recorded" in capsys.readouterr().err
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)


def test_a_run_under_nohup_outlives_its_terminal(suite, tmp_path, monkeypatch):
    def closes(jobs: object, context: object) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        raise InputError("still there")

    monkeypatch.setattr(runner, "preflight", closes)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pytest.raises(InputError, match="still there"):
            run_suite(suite, tmp_path / "results", QUIET)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_without_a_temporary_folder_verify_names_the_variable(suite, tmp_path, monkeypatch):
    assert run_suite(suite, tmp_path / "results", QUIET) == 0

    def none(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("epsbench.harness.files.tempfile.TemporaryDirectory", none)
    with pytest.raises(InputError, match=r"No usable temporary directory found.*TMPDIR"):
        verify.verify(suite, tmp_path / "results", QUIET, 1, lambda line: None)
