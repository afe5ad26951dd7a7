"""The reference runs, one suite after another: what ``make reference`` does. No torch.

Each suite runs in a process of its own, so a suite that is killed does not stop the others. Records and weights are
kept as they are made: after a stop the same command computes only what is missing.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from epsbench.harness.errors import InputError
from epsbench.harness.options import INTERRUPTED
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite

OUT = Path("results") / "reference"
HAS_GPU = "import sys, torch; sys.exit(not torch.cuda.is_available())"
Command = Sequence[str]


@dataclass(frozen=True)
class State:
    """How much of a suite is recorded."""

    name: str
    cells: int = 0
    """The number of cells."""
    done: int = 0
    """How many are measured."""
    void: int = 0
    """How many have a record that an audit voids."""
    failed: int = 0
    """How many failed."""
    problem: str = ""
    """Why these counts are unknown; empty when they are known."""

    @property
    def complete(self) -> bool:
        return not self.problem and self.done == self.cells

    def line(self) -> str:
        """``"mnist: complete, 27 cells"``."""
        if self.problem:
            return f"{self.name}: cannot run: {self.problem}"
        if self.complete:
            return f"{self.name}: complete, {_cells(self.cells)}"
        counts = {"failed": self.failed, "void": self.void}
        why = "".join(f", {count} {state}" for state, count in counts.items() if count)
        return f"{self.name}: {self.cells - self.done} of {_cells(self.cells)} missing{why}"


def run_all(
    suites: Iterable[str], out: Path, run: Callable[[Command], int], write: Callable[[str], None]
) -> list[State]:
    """Run every suite into a folder of its own below ``out``, all with one folder of weights.

    A suite that fails does not stop the others; an interruption does. ``run`` runs a command and returns its exit code,
    ``write`` takes a line of output. Returns the state of each suite.
    """
    suites = list(suites)
    for name in suites:
        write(f"== {name}")
        if (
            run(_command("run", name, "--out", str(_folder(out, name)), "--weights-folder", str(out / ".weights")))
            == INTERRUPTED
        ):
            break
    return [state(name, _folder(out, name)) for name in suites]


def state(name: str, results: Path) -> State:
    """How much of a suite is recorded in its folder."""
    try:
        made = plan(load_suite(name), results)
    except InputError as error:
        return State(name, problem="; ".join(error.messages))
    return State(name, len(made.suite.cells), len(made.done), len(made.void), len(made.failed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suites. Exit code 0: every suite for this machine is complete, 1: the last lines name what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m epsbench.harness.reference", description="Run the reference suites."
    )
    parser.add_argument("suites", nargs="*", help="suites that every machine runs")
    parser.add_argument(
        "--gpu", nargs="*", default=[], metavar="SUITE", help="suites that run after them where there is a GPU"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the results folders")
    given = parser.parse_args(arguments)
    able = not given.gpu or subprocess.run([sys.executable, "-c", HAS_GPU], check=False).returncode == 0
    states = run_all([*given.suites, *(given.gpu if able else [])], given.out, run_command, _write)
    _write("== reference results")
    for each in states:
        _write(each.line())
    if not able:
        _write(f"left for a machine with a GPU: {', '.join(given.gpu)}")
    folders = [folder for each in states if any((folder := _folder(given.out, each.name)).glob("cells/*.json"))]
    if folders:
        code = run_command(_command("report", *map(str, folders), "--out", str(given.out)), quiet=True)
        _write(f"all in one: {given.out / 'report.html'}" if code == 0 else "the joint report could not be made")
    return 0 if all(each.complete for each in states) else 1


def run_command(command: Command, quiet: bool = False) -> int:
    """Run a command and return its exit code. A signal to end goes to the command, which keeps what it has finished."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None) as process:

        def pass_on(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGTERM:  # a Ctrl-C reaches the command by itself
                process.terminate()

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _command(verb: str, *arguments: str) -> Command:
    return [sys.executable, "-m", "epsbench", verb, *arguments]


def _folder(out: Path, name: str) -> Path:
    return out / Path(name).stem


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
