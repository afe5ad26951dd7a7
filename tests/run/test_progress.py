"""Progress: a line for each cell and a line a minute, bars in gradients, and no remaining time that is a guess."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console
from small import suite_of

from epsbench.harness.options import Options
from epsbench.harness.run import progress
from epsbench.harness.run.progress import Cells, Count, Lines, Silent, Terminal, remaining
from epsbench.harness.run.robustness import job
from epsbench.harness.run.robustness.attack_progress import AttackProgress
from epsbench.harness.run.runner import run_suite

SUITE = """
[robustness]
data = "digits"
training = { epochs = 2, batch_size = 16 }
[robustness.matrix]
model = "smallcnn"
attack = ["fgsm", { name = "pgd", steps = 5, restarts = 2, random_start = true }, { name = "ensemble", parts = ["fgsm", "noise"] }]
eps = [0.05, 0.2]
"""  # noqa: E501


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("passed", "share", "left"),
    [(10, 0.5, 10), (30, 0.25, 90), (1, 0.5, None), (100, 0.01, None), (0, 0, None), (5, 1, 0)],
)
def test_the_remaining_time_is_not_a_guess(passed, share, left):
    assert remaining(passed, share) == left


def test_what_a_resumed_training_had_done_before_says_nothing_of_time():
    clock = Clock()
    count = Count(10, clock)
    count.advance(8)
    count.first = 8
    clock.now = 10
    assert count.left() == ""
    count.advance(1)
    assert count.left() == "about 10 s left"
    assert count.text("epochs") == "9 of 10 epochs"


def test_cheap_cells_say_little_about_dear_ones():
    clock = Clock()
    cells = Cells({"a": 1.0, "b": 1.0, "c": 98.0}, 5, clock)
    clock.now = 10
    cells.finished("a")
    assert cells.line() == "6 of 8 cells"  # one hundredth: no remaining time yet
    cells.finished("b")
    assert cells.line() == "7 of 8 cells, about 8.2 min left"


class Recorder(Silent):
    """What tasks there were, and how far each of them got."""

    def __init__(self):
        self.tasks: list[list] = []

    def task(self, description, total, unit=""):
        recorder, entry = self, [description, total, unit, []]
        recorder.tasks.append(entry)

        class Task:
            def advance(self, n=1, **fields):
                entry[3].append(n)

            def to(self, done):
                entry[3].append(done)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                entry.append("over")

        return Task()

    def finished(self, identity, line):
        self.tasks.append([line, None, "cell", []])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder, recorder = tmp_path_factory.mktemp("shown"), Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("epsbench.harness.run.runner._reporter", lambda work, estimator, console: recorder)
        assert run_suite(suite_of(folder, SUITE), folder / "results", Options(device="cpu")) in (0, 1)
    return recorder.tasks


def test_there_are_words_for_what_is_no_attack_and_no_training(tasks):
    names = [name for name, *_ in tasks]
    for wanted in ("trying models and attacks", "loading digits", "timing and compiling the fastest form of the model"):
        assert wanted in names
    assert all(entry[-1] == "over" for entry in tasks if entry[2] != "cell")
    assert sum(entry[2] == "cell" for entry in tasks) == 6


def test_an_attack_is_counted_in_gradients_that_are_done_or_not_needed(tasks):
    attacks = {name: (total, done) for name, total, unit, done, *_ in tasks if unit == "gradients"}
    assert list(attacks) == ["fgsm", "pgd(random_start=True, restarts=2, steps=5)", *list(attacks)[2:]]
    assert len([name for name, _, unit, *_ in tasks if unit == "gradients" and name.startswith("ensemble")]) == 4
    for total, done in attacks.values():
        assert done[-1] == total
        assert done == sorted(done)
    total, done = attacks["pgd(random_start=True, restarts=2, steps=5)"]
    assert total % (2 * 2 * 5) == 0
    assert len(set(done)) > 3  # it does not stand at 0 until a cell ends


def test_a_training_moves_within_its_epochs(tasks):
    ((total, unit, done),) = [(t, u, d) for name, t, u, d, *_ in tasks if name.startswith("training")]
    assert (total, unit) == (2, "epochs")
    assert any(0 < each < 1 for each in done)


def test_a_line_a_cell_and_a_line_a_minute(monkeypatch):
    lines: list[str] = []
    with Lines(lines.append, {"a": 1.0, "b": 1.0}, 3, every=0.05) as reporter:
        with reporter.task("training smallcnn", 10, "epochs") as task:
            task.advance()
            task.to(2.5)
            time.sleep(0.2)
        reporter.finished("a", "91.2 %  pgd")
    assert "3 of 5 cells; training smallcnn: 2.5 of 10 epochs" in lines
    assert lines[-1] == "[4] 91.2 %  pgd"
    count = len(lines)
    time.sleep(0.15)
    assert len(lines) == count
    assert progress.EVERY == 60


def test_a_pipe_gets_lines_and_quiet_gets_none(tmp_path, capsys):
    suite = suite_of(tmp_path, re.sub("attack = .*", 'attack = "fgsm"', SUITE.replace("epochs = 2", "epochs = 0")))
    assert run_suite(suite, tmp_path / "a", Options(device="cpu")) in (0, 1)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert len(lines) == 2
    assert re.match(r"\[1\] +\d+\.\d% +digits smallcnn", lines[0])
    assert run_suite(suite, tmp_path / "b", Options(device="cpu", quiet=True)) in (0, 1)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_bars_in_gradients_and_the_cells():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with Terminal(console, {"a": 1.0}, 1) as terminal:
        with terminal.task("pgd", 400_000, "gradients") as task:
            task.to(12_300)
            time.sleep(0.15)
            task.to(24_600)
            terminal._progress.refresh()
        with terminal.task("timing", None):
            terminal._progress.refresh()
        terminal.finished("a", "91.2 %  pgd")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "24,600 of 400,000 gradients" in shown
    assert "timing" in shown
    assert "91.2 %  pgd" in shown
    assert "2 of 2" in shown


def test_audits_after_an_attack_show_nothing():
    recorder = Recorder()
    with AttackProgress(recorder, "pgd") as watch:
        watch.begin("", 10)
        watch.at(10)
    watch.begin("", 10)
    watch.at(5)
    assert [entry[0] for entry in recorder.tasks] == ["pgd"]
    assert job.Unwatched().begin("", 1) is None
