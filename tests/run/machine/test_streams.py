"""Standard streams that are closed, full or piped into a program that reads no further."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from epsbench.harness import cli
from epsbench.harness.errors import InputError
from epsbench.harness.run.machine.streams import Guarded

SUITE = """
[robustness]
data = "digits"
[robustness.matrix]
model = "smallcnn"
attack = "noise"
eps = 0.1
[[robustness.expect]]
clean_accuracy = { min = 0.5 }
"""


def ended(folder: Path, command: str) -> tuple[int, str]:
    """The exit code of a shell command line, where ``epsbench`` is this one, and what it writes to standard error."""
    (folder / "s.toml").write_text(SUITE, encoding="utf-8")
    line = f"set -o pipefail; {command.replace('epsbench', f'{sys.executable} -m epsbench.harness.cli')}"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("epsbench plan s.toml >&-", 0),
        ("epsbench plan s.toml <&- >&- 2>&-", 0),
        ("epsbench plan s.toml | true", 0),
        ("epsbench schema | head -c 10", 0),
        ("epsbench check s.toml --out gone | true", 2),
        ("epsbench plan gone.toml 2> /dev/full", 2),
        ("epsbench plan gone.toml 2>&1 | true", 2),
    ],
)
def test_the_exit_code_is_the_commands_whoever_reads(tmp_path, command, code):
    assert ended(tmp_path, command) == (code, "")


@pytest.mark.parametrize("command", ["epsbench plan s.toml > /dev/full", "epsbench schema > /dev/full"])
def test_a_full_disk_behind_standard_output_is_one_message(tmp_path, command):
    code, error = ended(tmp_path, command)
    assert code == 2
    assert error.startswith("epsbench: standard output cannot be written (No space left on device); ")
    assert len(error.splitlines()) == 1


def test_what_nobody_reads_is_dropped():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as pipe:
        stream = Guarded(pipe)
        print("x" * 100_000, file=stream)
        stream.flush()
        print("more", file=stream, flush=True)
        assert stream.encoding == "utf-8"


def test_standard_error_loses_what_cannot_be_written_and_standard_output_shows_it():
    with Path("/dev/full").open("w") as full:
        Guarded(full, loses=True).write("x" * 100_000)
    with Path("/dev/full").open("w") as full, pytest.raises(InputError, match="standard output cannot be written"):
        Guarded(full).write("x" * 100_000)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "epsbench: out of memory; finished cells are kept: free memory or raise its limit"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "epsbench: out of memory (libtorch"),
        (ImportError(f"x.so: {os.strerror(errno.ENOMEM)}"), "epsbench: out of memory (x.so: Cannot allocate memory)"),
    ],
)
def test_no_memory_is_one_message(monkeypatch, capsys, error, message):
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(cli, "guard_streams", lambda: None)
    monkeypatch.setattr(cli, "print_warnings", lambda: None)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_mistake_in_an_import_stays_a_traceback(monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(cli, "guard_streams", lambda: None)
    monkeypatch.setattr(cli, "print_warnings", lambda: None)
    with pytest.raises(ImportError, match="cannot import name"):
        cli.main()
