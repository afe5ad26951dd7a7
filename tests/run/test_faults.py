"""What happens to a run when the machine fails it: nothing finished is lost, and one message says what to do."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import torch
from small import QUIET, TINY, suite_of, verdicts

from epsbench.harness.errors import InputError
from epsbench.harness.plan.plan import plan
from epsbench.harness.records import read_records
from epsbench.harness.report.build import report
from epsbench.harness.run import context as context_module
from epsbench.harness.run.failure import LONGEST_MESSAGE
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.training import trained as classifiers


class Full:
    """A disk that takes so many files more and then has no room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: int, code: int = errno.ENOSPC) -> None:
        self.left = files
        really = os.fsync

        def fsync(handle: int) -> None:
            folder = stat.S_ISDIR(os.fstat(handle).st_mode)
            if self.left == 0 and not folder:
                raise OSError(code, os.strerror(code))
            self.left -= not folder
            really(handle)

        monkeypatch.setattr(os, "fsync", fsync)


# Files in order: weights, then for each cell its pictures and its record.
@pytest.mark.parametrize(
    ("files", "recorded", "named"),
    [(0, 0, "weights/"), (1, 0, "pictures/"), (2, 0, "cells/"), (3, 1, "pictures/"), (6, 2, "cells/")],
)
def test_a_full_disk_stops_the_run_with_one_message_and_the_rest_follows_later(
    suite, tmp_path, monkeypatch, files, recorded, named
):
    results = tmp_path / "results"
    with monkeypatch.context() as full:
        Full(full, files)
        with pytest.raises(InputError) as stopped:
            run_suite(suite, results, QUIET)
    (message,) = stopped.value.messages
    assert named in message
    assert "No space left on device" in message
    assert "make room" in message
    before = {path: path.read_bytes() for path in (results / "cells").glob("*.json")}
    assert len(before) == recorded
    assert not list(results.rglob("*.tmp"))
    assert run_suite(suite, results, QUIET) == 0
    assert {record.status for record in read_records(results)} == {"ok"}
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_disk_that_turns_read_only_stops_the_run(suite, tmp_path, monkeypatch):
    Full(monkeypatch, 3, errno.EROFS)
    with pytest.raises(InputError, match="Read-only file system"):
        run_suite(suite, tmp_path / "results", QUIET)


def test_no_room_for_what_others_write_is_no_failed_cell(suite, tmp_path, monkeypatch):
    """TensorBoard writes its own files."""

    class Board(context_module.NoBoard):
        def add_scalar(self, tag: str, value: float, step: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "events.out")

    monkeypatch.setattr(context_module.Context, "board", lambda self, key: Board())
    with pytest.raises(InputError, match=r"events\.out: cannot be written \(No space left"):
        run_suite(suite, tmp_path / "results", QUIET)
    assert not read_records(tmp_path / "results")


def test_a_read_only_results_folder_is_refused_before_anything_runs(suite, tmp_path, monkeypatch):
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("epsbench.harness.plan.plan.tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"results cannot be written there .*--out"):
        run_suite(suite, tmp_path / "results", QUIET)


def test_a_damaged_record_is_named_and_alone_is_measured_again(suite, tmp_path):
    results = tmp_path / "results"
    assert run_suite(suite, results, QUIET) == 0
    before = verdicts(results)
    torn = results / "cells" / f"{suite.cells[1].id}.json"
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{torn.name}: not a record: .*delete the file"):
        run_suite(suite, results, QUIET)
    torn.unlink()
    assert run_suite(suite, results, QUIET) == 0
    assert verdicts(results) == before


def test_truncated_weights_stop_the_run_and_once_deleted_are_trained_again(suite, tmp_path):
    results = tmp_path / "results"
    assert run_suite(suite, results, QUIET) == 0
    before = verdicts(results)
    (weights,) = (results / "weights").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    lost = results / "cells" / f"{suite.cells[0].id}.json"
    lost.unlink()
    with pytest.raises(InputError, match=f"{weights.name}: not the weights .*delete the file"):
        run_suite(suite, results, QUIET)
    weights.unlink()
    assert run_suite(suite, results, QUIET) == 0
    assert verdicts(results) == before


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError(),
              RuntimeError("DefaultCPUAllocator: can't allocate memory")], ids=["cuda", "python", "cpu"]
)  # fmt: skip
def test_out_of_memory_in_training_fails_the_cells_and_says_what_to_do(suite, tmp_path, monkeypatch, error):
    def exhausted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(classifiers, "train_classifier", exhausted)
    assert run_suite(suite, tmp_path / "results", QUIET) == 1
    kept = read_records(tmp_path / "results")
    assert len(kept) == len(suite.cells)
    for record in kept:
        assert record.status == "failed"
        assert "out of memory" in record.failure.message
        assert "lower batch_size" in record.failure.message
    monkeypatch.undo()
    assert run_suite(suite, tmp_path / "results", QUIET) == 0


def test_an_endless_message_is_cut(suite, tmp_path, monkeypatch):
    def shout(*_: object, **__: object) -> None:
        raise ValueError("x" * 10**7)

    monkeypatch.setattr(classifiers, "train_classifier", shout)
    assert run_suite(suite, tmp_path / "results", QUIET) == 1
    for path in (tmp_path / "results" / "cells").iterdir():
        assert path.stat().st_size < 100_000
    assert {len(record.failure.message) for record in read_records(tmp_path / "results")} == {LONGEST_MESSAGE}


HOLDER = """
import sys, time
from pathlib import Path
from epsbench.harness.run.machine.lock import only_run
with only_run(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_run_on_the_same_folder_is_refused_and_a_killed_one_leaves_no_lock(suite, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(results)], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match=rf"another run is writing there \(process {holder.pid} on .*--out"):
            run_suite(suite, results, QUIET)
        assert not (results / "cells").exists()
        holder.kill()
    assert (results / ".lock").exists()
    assert run_suite(suite, results, QUIET) == 0


def test_a_lock_that_cannot_be_opened_is_one_message(suite, tmp_path):
    (tmp_path / "results" / ".lock").mkdir(parents=True)
    with pytest.raises(InputError, match=r"\.lock: cannot be opened .*--out"):
        run_suite(suite, tmp_path / "results", QUIET)


def test_a_clock_that_goes_backwards_changes_no_number(suite, tmp_path, monkeypatch):
    assert run_suite(suite, tmp_path / "straight", QUIET) == 0
    ticks = iter(range(10_000))

    def backwards(self: object) -> str:
        return (datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=next(ticks))).isoformat()

    monkeypatch.setattr(context_module.Context, "clock", backwards)
    results = tmp_path / "backwards"
    assert run_suite(suite, results, QUIET) == 0
    assert verdicts(results) == verdicts(tmp_path / "straight")
    for record in read_records(results):
        assert record.finished < record.started
        assert 0 < record.cost["seconds"] < 60
        assert record.training["seconds"] > 0
    assert not plan(suite, results).pending
    assert "On digits, 1 trained model was attacked with noise and fgsm" in report(results, "markdown")


PRINTS = """
import sys
from torch import nn

class Prints(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    def forward(self, x):
        print("noise from a model")
        return self.net(x)

class Exits(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.net, self.calls = nn.Linear(64, classes), 0
    def forward(self, x):
        self.calls += self.training
        if self.calls > {after}:
            sys.exit(0)
        return self.net(x.flatten(1))
"""


def test_what_a_model_prints_stays_out_of_standard_output(tmp_path, capsys):
    (tmp_path / "own.py").write_text(PRINTS)
    suite = suite_of(tmp_path, TINY.replace('"smallcnn"', '"own.py:Prints"'))
    assert run_suite(suite, tmp_path / "results", QUIET) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "noise from a model" in err


def test_a_model_that_exits_is_a_failed_cell(tmp_path):
    (tmp_path / "own.py").write_text(PRINTS.replace("{after}", "1"))
    suite = suite_of(tmp_path, TINY.replace('"smallcnn"', '"own.py:Exits"'))
    assert run_suite(suite, tmp_path / "results", QUIET) == 1
    assert {record.failure.type for record in read_records(tmp_path / "results")} == {"SystemExit"}


def test_a_model_that_exits_at_once_is_refused_before_training(tmp_path):
    (tmp_path / "own.py").write_text(PRINTS.replace("{after}", "0"))
    suite = suite_of(tmp_path, TINY.replace('"smallcnn"', '"own.py:Exits"'))
    with pytest.raises(InputError, match=r"in train mode it raises for .* images: SystemExit: 0"):
        run_suite(suite, tmp_path / "results", QUIET)
