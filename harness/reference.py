"""The reference runs, one suite after another: what ``make reference`` does. No torch.

Each suite runs in a process of its own, so that one that is killed takes no other with it. Records and weights are kept
as they come: the same command goes on wherever it was stopped.
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
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite

OUT = Path("results") / "reference"
INTERRUPTED = 130
HAS_GPU = "import sys, torch; sys.exit(not torch.cuda.is_available())"
Command = Sequence[str]


@dataclass(frozen=True)
class State:
    """How far a suite is: its cells, and how many are recorded, void or failed. ``problem``: why that is unknown."""

    name: str
    cells: int = 0
    done: int = 0
    void: int = 0
    failed: int = 0
    problem: str = ""

    @property
    def complete(self) -> bool:
        return not self.problem and self.done == self.cells

    def told(self) -> str:
        """``"mnist: complete, 27 cells"``."""
        if self.problem:
            return f"{self.name}: cannot run: {self.problem}"
        if self.complete:
            return f"{self.name}: complete, {_cells(self.cells)}"
        counts = {"failed": self.failed, "void": self.void}
        why = "".join(f", {count} {state}" for state, count in counts.items() if count)
        return f"{self.name}: {self.cells - self.done} of {_cells(self.cells)} missing{why}"


def run_all(
    suites: Iterable[str], out: Path, run: Callable[[Command], int], tell: Callable[[str], None]
) -> list[State]:
    """Run every suite into a folder of its own in ``out``, with one folder of weights, whatever becomes of the others.

    ``run`` runs a command and returns its exit code; an interruption ends the whole. Returns the state of each suite.
    """
    suites = list(suites)
    for name in suites:
        tell(f"== {name}")
        if (
            run(_command("run", name, "--out", str(_folder(out, name)), "--weights", str(out / ".weights")))
            == INTERRUPTED
        ):
            break
    return [state(name, _folder(out, name)) for name in suites]


def state(name: str, results: Path) -> State:
    """What of a suite is recorded in its folder."""
    try:
        made = plan(load_suite(name), results)
    except InputError as error:
        return State(name, problem="; ".join(error.messages))
    return State(name, len(made.suite.cells), len(made.done), len(made.void), len(made.failed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: every suite for this machine is complete, 1: something is missing, named at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m epsbench.harness.reference", description="Run the reference suites."
    )
    parser.add_argument("suites", nargs="*", help="suites that every machine runs")
    parser.add_argument(
        "--gpu", nargs="*", default=[], metavar="SUITE", help="suites for machines with a GPU, after them"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where the results folders lie")
    given = parser.parse_args(arguments)
    able = not given.gpu or subprocess.run([sys.executable, "-c", HAS_GPU], check=False).returncode == 0
    states = run_all([*given.suites, *(given.gpu if able else [])], given.out, run_command, _tell)
    _tell("== reference results")
    for each in states:
        _tell(each.told())
    if not able:
        _tell(f"left for a machine with a GPU: {', '.join(given.gpu)}")
    folders = [folder for each in states if any((folder := _folder(given.out, each.name)).glob("cells/*.json"))]
    if folders:
        told = run_command(_command("report", *map(str, folders), "--out", str(given.out)), quiet=True)
        _tell(f"all in one: {given.out / 'report.html'}" if told == 0 else "the joint report could not be made")
    return 0 if all(each.complete for each in states) else 1


def run_command(command: Command, quiet: bool = False) -> int:
    """The exit code of a command. What would end this process ends the command first, which leaves what can go on."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None) as process:

        def pass_on(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGTERM:  # a Ctrl-C reaches the command without us
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


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
