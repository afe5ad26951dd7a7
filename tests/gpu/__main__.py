"""``make gpu``: everything that wants a GPU, in pieces of less than ten minutes, each kept in a folder as it ends.

    python -m tests.gpu --out results/gpu --minutes 9

Each piece is a process of its own, so one that crashes or hangs takes no other with it. The same command goes on after
the last finished piece; failed ones are tried again. Exit code 0: all pieces are done, 1: one failed, 3: some are left.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

from epsbench.harness.files import write_atomically
from epsbench.harness.run.machine.environment import choose_device, describe
from tests.gpu.kept import Finished, Settings, keep, read, summary
from tests.gpu.pieces import PIECES, Piece, UnfinishedError

DONE, FAILED, LEFT = 0, 1, 3
LEAST = 30.0  # seconds that must be left for a piece to begin


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results") / "gpu")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="as small as possible, to see that it runs")
    parser.add_argument("--minutes", type=float, default=0, help="begin no further piece after so long; 0: no limit")
    parser.add_argument("--only", nargs="+", default=[], metavar="PIECE", choices=list(PIECES))
    parser.add_argument("--piece", choices=list(PIECES), help=argparse.SUPPRESS)  # this process is the piece
    parser.add_argument("--seconds", type=float, default=540.0, help="how long a piece may take")
    given = parser.parse_args(arguments)
    settings = Settings(given.out.absolute(), given.device, given.tiny, given.seconds)
    if given.piece:
        return _piece(settings, PIECES[given.piece])
    end = time.monotonic() + 60 * given.minutes if given.minutes else float("inf")
    able = [each for each in PIECES.values() if each.suits(settings)]
    wanted = [each for each in able if not given.only or each.name in given.only]
    for each in wanted:
        while (kept := read(settings, each.name)) is None or kept.status != "ok":
            left = min(settings.seconds, end - time.monotonic())
            if left < LEAST:
                break
            print(f"== {each.name}: {each.title}", flush=True)
            finished = _in_its_own_process(settings, each, left)
            print(f"   {finished.status} after {finished.seconds:.1f} s{_why(finished)}", flush=True)
            if finished.status != "unfinished":
                break
    names = [each.name for each in able]
    write_atomically(settings.out / "summary.md", summary(settings, names).encode())
    print(summary(settings, names))
    if not settings.cuda:
        print(f"left for a GPU: {', '.join(each.name for each in PIECES.values() if each.cuda)}")
    states = [kept.status if (kept := read(settings, each.name)) else "left" for each in wanted]
    return FAILED if "failed" in states else DONE if all(state == "ok" for state in states) else LEFT


def _why(finished: Finished) -> str:
    return f": {finished.message.strip().splitlines()[-1]}" if finished.message.strip() else ""


def _in_its_own_process(settings: Settings, piece: Piece, seconds: float) -> Finished:
    command = [sys.executable, "-m", "tests.gpu", "--out", str(settings.out), "--device", settings.device,
               "--piece", piece.name, "--seconds", str(seconds), *(["--tiny"] if settings.tiny else [])]  # fmt: skip
    began, before = time.monotonic(), read(settings, piece.name)
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True) as process:
        try:
            process.wait(seconds + LEAST)
        except subprocess.TimeoutExpired:
            pass
        finally:  # with everything that it started
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    after = read(settings, piece.name)
    if after is not None and after != before:
        return after
    why = f"it ended with exit code {process.returncode} and kept nothing; it may take {seconds:.0f} s"
    died = Finished(piece.name, "failed", settings.device, settings.tiny, time.monotonic() - began, message=why)
    keep(settings.out, died)
    return died


def _piece(settings: Settings, piece: Piece) -> int:
    began, status, result, message = time.monotonic(), "ok", {}, ""
    try:
        result = piece.run(settings)
    except UnfinishedError as error:
        status, message = "unfinished", str(error)
    # Whatever a piece raises is its result: the others go on.
    except Exception:  # noqa: BLE001
        status, message = "failed", traceback.format_exc()
    environment = describe(choose_device(settings.device))
    keep(settings.out, Finished(piece.name, status, settings.device, settings.tiny, time.monotonic() - began, result,
                                message, environment))  # fmt: skip
    return DONE if status == "ok" else FAILED


if __name__ == "__main__":
    sys.exit(main())
