"""``make gpu`` at its smallest, on a CPU: every piece that needs no CUDA works, and what is killed goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gpu import __main__ as runner
from tests.gpu.kept import Finished, Settings, keep, path_of, read, summary
from tests.gpu.pieces import PIECES, Piece, UnfinishedError

ROOT = Path(__file__).parents[2]
WITHIN = 300.0  # seconds that a busy machine may take
TINY = Settings(Path(), "cpu", tiny=True)
ABLE = [piece.name for piece in PIECES.values() if piece.suits(TINY)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return Settings(tmp_path_factory.mktemp("gpu"), "cpu", tiny=True)


@pytest.mark.parametrize("name", ABLE)
def test_every_piece_that_needs_no_cuda_works(settings, name):
    assert runner._piece(settings, PIECES[name]) == 0
    finished = read(settings, name)
    assert finished.status == "ok", finished.message
    assert finished.result
    assert finished.environment["device"]["type"] == "cpu"


def test_tiny_leaves_out_sizes_alone(settings):
    assert {PIECES[each.like].run.func for each in PIECES.values() if each.like} == {
        each.run.func for each in PIECES.values() if each.like
    }
    assert all(not PIECES[each.like].like for each in PIECES.values() if each.like)
    big = Settings(settings.out, "cuda")
    assert all(each.suits(big) for each in PIECES.values())


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "tests.gpu", "--tiny", "--device", "cpu", "--out", str(out), *more]


def test_a_run_that_is_killed_goes_on_after_its_finished_pieces(tmp_path):
    pieces = ["--only", "tests-01", "memory-growth"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command(tmp_path, *pieces), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + WITHIN
        while not path_of(tmp_path, "tests-01").is_file() and run.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        run.kill()
        run.wait()
    before = path_of(tmp_path, "tests-01").read_bytes()
    done = subprocess.run(command(tmp_path, *pieces), cwd=ROOT, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "== tests-01" not in done.stdout
    assert path_of(tmp_path, "tests-01").read_bytes() == before
    assert "| memory-growth | ok |" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "left for a GPU: memory-limit, polling" in done.stdout


def test_what_another_device_or_size_kept_does_not_count(tmp_path):
    settings = Settings(tmp_path, "cuda")
    keep(tmp_path, Finished("forms", "ok", "cuda", False, 1.0, {"a": 1}))
    assert read(settings, "forms").result == {"a": 1}
    assert read(Settings(tmp_path, "cpu"), "forms") is None
    assert read(Settings(tmp_path, "cuda", tiny=True), "forms") is None
    path_of(tmp_path, "forms").write_text("torn", encoding="utf-8")
    assert read(settings, "forms") is None
    assert "| forms | left |" in summary(settings, ["forms"])


def test_a_piece_that_raises_or_is_not_finished_is_kept_as_that(settings):
    def raises(given: Settings) -> dict[str, object]:
        raise ValueError("not so")

    def stops(given: Settings) -> dict[str, object]:
        raise UnfinishedError("time is up")

    assert runner._piece(settings, Piece("raises", "", raises)) == 1
    assert "ValueError: not so" in read(settings, "raises").message
    runner._piece(settings, Piece("stops", "", stops))
    assert read(settings, "stops").status == "unfinished"


def test_no_piece_begins_when_the_minutes_are_over(tmp_path, capsys):
    arguments = ["--tiny", "--device", "cpu", "--out", str(tmp_path), "--only", "forms", "--minutes", "0.1"]
    assert runner.main(arguments) == runner.LEFT
    assert "| forms | left |" in capsys.readouterr().out


def test_a_piece_that_hangs_is_ended_with_its_children_and_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LEAST", 0.0)
    died = runner._in_its_own_process(Settings(tmp_path, "cpu", tiny=True), PIECES["forms"], 0.2)
    assert died.status == "failed"
    assert "it may take 0 s" in died.message
    assert json.loads(path_of(tmp_path, "forms").read_text())["status"] == "failed"
