"""The command line as a whole: several suites, options with one meaning, completion, examples, durations."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from epsbench.harness import choices, cli, completion, durations, measuring
from epsbench.harness.errors import InputError
from epsbench.harness.old_options import OLD_OPTIONS, renamed
from epsbench.harness.options import INTERRUPTED, TIME_IS_UP, Options
from epsbench.harness.plan.names.registry import make
from epsbench.harness.plan.on_the_spot import evaluation_suite
from epsbench.harness.plan.one_word import parsed
from epsbench.harness.records import read_records
from epsbench.harness.several import RUN_ORDER, Work, load_suites, run_each, worst

ROOT = Path(__file__).parents[1]
TINY = """
[robustness]
data = "digits"
limit = 40
training = { epochs = 0 }
matrix = { model = "smallcnn", attack = "noise", eps = 0.1 }
[[robustness.expect]]
clean_accuracy = { min = LEAST }
"""


@pytest.fixture
def call(shell, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, least in (("one", "0.0"), ("two", "1.0")):
        (tmp_path / f"{name}.toml").write_text(TINY.replace("LEAST", least), encoding="utf-8")
    return shell


def verbs() -> dict[str, typer.models.CommandInfo]:
    return {each.name or each.callback.__name__: each for each in cli.app.registered_commands}


def test_several_suites_run_into_folders_of_their_own_with_one_exit_code(call, tmp_path):
    code, text, error = call("run", "one.toml", "two.toml", "--out", "both", "--quiet", "--device", "cpu")
    assert code in (0, 1), error
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"one", "two"}
    assert len(read_records(tmp_path / "both" / "one")) == 1
    assert "== one (1 of 2), results in both/one" in text
    assert text.splitlines()[-3:] == ["== all suites", "one: measured", "two: measured"] or code == 1
    code, text, _ = call("check", "one.toml", "two.toml", "--out", "both", "--junit", "check.xml")
    assert code == 1  # one holds, two is broken
    assert "one: 1 of 1 bound hold" in text
    assert "two: 0 of 1 bound hold" in text
    assert {path.name for path in tmp_path.glob("*.xml")} == {"check-one.xml", "check-two.xml"}
    _, text, _ = call("plan", "one.toml", "two.toml", "--out", "both")
    assert text.count("1 cells in 1 jobs: 1 done") == 2


def test_every_problem_of_several_suites_is_said_before_anything_runs(call, tmp_path):
    code, _, error = call("run", "one.toml", "gone.toml", "quickstar", "--out", "both")
    assert code == 2
    assert "gone.toml" in error
    assert "did you mean 'quickstart'" in error
    assert not (tmp_path / "both").exists()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.toml").write_text(TINY.replace("LEAST", "0.0"), encoding="utf-8")
    code, _, error = call("run", "one.toml", "sub/one.toml")
    assert code == 2
    assert "sub/one.toml: another suite of this command is called one too" in error


def test_a_suite_that_cannot_run_stops_no_other_and_an_interruption_stops_all(capsys, tmp_path):
    (work,) = load_suites(["mnist"], None, None, None)
    works = [Work(replace(work.suite, name=f"s{number}"), tmp_path) for number in range(4)]

    def codes_of(*codes: object) -> tuple[int, list[str]]:
        lines, wanted = [], iter(codes)

        def measure(suite, results, options, images, echo):
            code = next(wanted)
            if isinstance(code, Exception):
                raise code
            return code

        return run_each(works, Options(time_limit=100), tmp_path / "images.npz", lines.append, measure), lines[-4:]

    assert codes_of(0, InputError("no data"), 1, 0) == (
        2, ["s0: measured", "s1: cannot run or report", "s2: measured, and some cells failed or are void",
            "s3: measured"]
    )  # fmt: skip
    assert "epsbench: s1: no data" in capsys.readouterr().err
    assert codes_of(0, INTERRUPTED) == (
        INTERRUPTED, ["s0: measured", "s1: stopped", "s2: not begun", "s3: not begun"]
    )  # fmt: skip
    assert worst([0, 1, TIME_IS_UP], RUN_ORDER) == TIME_IS_UP


def test_the_time_limit_of_several_suites_is_for_all_together(tmp_path):
    (work,) = load_suites(["mnist"], tmp_path, None, None)
    given = []

    def measure(suite, results, options, images, echo):
        given.append(options.time_limit)
        return 0

    assert run_each([work, work], Options(time_limit=1e-9), None, lambda text: None, measure) == TIME_IS_UP
    assert given == []


def test_a_change_reaches_records_plan_and_show(call, tmp_path):
    change = ("--set", "robustness.matrix.eps=[0.1, 0.2]")
    code, text, _ = call("plan", "one.toml", *change)
    assert code == 0
    assert "2 cells in 1 jobs" in text
    assert call("run", "one.toml", *change, "--quiet", "--device", "cpu")[0] in (0, 1)
    records = read_records(tmp_path / "results" / "one")
    assert {record.cell["eps"] for record in records} == {"0.1", "0.2"}
    assert {record.description for record in records} == {"(changed: robustness.matrix.eps = [0.1, 0.2])"}
    assert call("check", "one.toml", *change)[0] == 0
    assert "eps = [0.1, 0.2]" in call("show", "one.toml", *change)[1]


def test_an_option_means_the_same_in_every_verb():
    """One spelling is one thing: its help and its placeholder are the same wherever it is."""
    meanings: dict[str, set[tuple[object, object]]] = {}
    for info in verbs().values():
        for name, parameter in inspect.signature(info.callback, eval_str=True).parameters.items():
            for option in getattr(parameter.annotation, "__metadata__", ()):
                if isinstance(option, typer.models.OptionInfo):
                    spelling = next(iter(option.param_decls or ()), f"--{name.replace('_', '-')}")
                    meanings.setdefault(spelling, set()).add((option.metavar, type(option.default).__name__))
    different = {name for name, places in meanings.items() if len(places) > 1}
    assert different == set()


@pytest.mark.parametrize(("verb", "old"), [(verb, old) for verb, table in OLD_OPTIONS.items() for old in table])
def test_options_under_their_old_names_still_work_and_say_so(verb, old):
    new = OLD_OPTIONS[verb][old]
    arguments, lines = renamed([verb, "mnist", old, "place", f"{old}=place", "--", old])
    assert arguments == [verb, "mnist", new, "place", f"{new}=place", "--", old]
    assert lines[0] == f"{old} of {verb} is called {new} now; the old name still works"
    assert renamed(["check", old]) == (["check", old], [])


def test_an_old_option_is_said_on_standard_error(call, tmp_path):
    code, _, error = call("run", "one.toml", "--data", tmp_path, "--quiet", "--device", "cpu")
    assert code in (0, 1)
    assert "--data of run is called --data-folder now" in error
    code, _, error = call("run", "one.toml", "--data", "mnist")
    assert code == 2
    assert "mnist is a data set" in error
    assert "--set robustness.data=mnist" in error


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_the_help_of_every_verb_has_two_examples(verb):
    text = CliRunner().invoke(cli.app, [verb, "--help"]).stdout
    shown = text.partition("Examples:")[2]
    assert shown.count(f"epsbench {verb}") >= 2
    assert choices.EXAMPLES[verb].count(f"epsbench {verb}") >= 2


COMPLETE = """
import os, sys
os.environ |= {"_EPSBENCH_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": sys.argv[1]}
sys.argv = ["epsbench"]
from epsbench.harness.cli import app
try:
    app(prog_name="epsbench")
finally:
    assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("epsbench ru", ["run"]), ("epsbench run mnist-", ["mnist-autoattack", "mnist-robust"]),
        ("epsbench evaluate small", ["smallcnn"]),
        ("epsbench evaluate x.py:load --attack apg", ["apgd", "apgd-t"]),
        ("epsbench audit x.py:load --data cifar", ["cifar10", "cifar100"]),
    ],
)  # fmt: skip
def test_a_shell_completes_names_without_torch(typed, offered, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE, typed], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "AssertionError" not in done.stderr
    assert all(f'"{name}"' in done.stdout for name in offered), done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_for_each_shell(shell):
    script = (
        "import os, sys\n"
        f"os.environ['_EPSBENCH_COMPLETE'] = 'source_{shell}'\n"
        "sys.argv = ['epsbench']\n"
        "from epsbench.harness.cli import app\n"
        "app(prog_name='epsbench')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "_EPSBENCH_COMPLETE" in done.stdout
    assert f"complete_{shell}" in done.stdout


def test_completion_is_that_of_the_command_however_it_was_asked_for():
    command = f"{sys.executable} -m epsbench --show-completion; true"  # as the child of a shell, which it looks for
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "_EPSBENCH_COMPLETE=complete_bash" in done.stdout
    assert done.stdout.rstrip().endswith(" epsbench")


def test_files_and_folders_are_offered_beside_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "mine.toml").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "net.py").touch()
    assert completion.suites("su") == ["suites/"]
    assert completion.suites("suites/m") == ["suites/mine.toml"]
    assert completion.suites("gone/m") == []
    assert completion.models("n") == ["net.py"]
    assert completion.suites("quick") == ["quickstart"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("90s", 90), ("90", 90), ("1h30m", 5400), ("0.5h", 1800), (" 2 min", None),
                          ("2min", 120), ("", None), ("0s", None), ("m5", None), ("-5m", None)]
)  # fmt: skip
def test_durations(text, seconds):
    if seconds is None:
        with pytest.raises(ValueError, match="no duration"):
            durations.seconds_of(text)
    else:
        assert durations.seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (45, "45 s"), (90, "1.5 min"), (300, "5 min"), (5400, "1 h 30 min")]
)
def test_durations_are_shown_in_the_units_that_matter(seconds, text):
    assert durations.shown(seconds) == text


def test_a_time_limit_that_is_none_is_one_message(call):
    code, _, error = call("run", "one.toml", "--time-limit", "soon")
    assert code == 2
    assert "'soon' is no duration" in error.replace("│", " ")


def test_the_images_of_the_first_n_are_kept(call, tmp_path):
    ones = ("run", "one.toml", "--quiet", "--device", "cpu", "--out", "out")
    assert call(*ones, "--keep-images", 5)[0] in (0, 1)
    (record,) = read_records(tmp_path / "out")
    path = tmp_path / "out" / "images" / f"{record.id}.npz"
    with np.load(path) as kept:
        few = {name: kept[name] for name in kept.files}
    assert (len(few["images"]), len(few["labels"]), int(few["of"])) == (5, 5, 40)
    assert "nothing to do" in call(*ones, "--keep-images", 3)[1]
    assert "nothing to do" not in call(*ones, "--save-images", "all.npz")[1]
    with np.load(path) as kept:
        assert len(kept["images"]) == 40
        for name in ("images", "adversarial_class", "fooled", "attacked", "clean_class"):
            assert np.array_equal(kept[name][:5], few[name]), name
    assert "nothing to do" in call(*ones, "--keep-images", 40)[1]
    assert json.loads((tmp_path / "out" / "cells" / f"{record.id}.json").read_text())["status"] == record.status


@pytest.mark.parametrize("works", [True, False])
def test_a_report_on_many_records_is_made_in_a_process_of_its_own(call, monkeypatch, tmp_path, works):
    monkeypatch.setattr(measuring, "MANY", 1)
    commands, original = [], subprocess.run

    def run(command, **options):
        if "report" not in command:
            return original(command, **options)
        commands.append(command)
        return original(command if works else [sys.executable, "-c", "raise SystemExit(1)"], **options)

    monkeypatch.setattr(measuring.subprocess, "run", run)
    code, text, _ = call("run", "one.toml", "--quiet", "--device", "cpu", "--out", "out")
    assert code in (0, 1)
    assert len(commands) == 1
    assert "Robust accuracy on digits" in text
    assert text.rstrip().endswith("out/report.md")
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_report_that_cannot_be_written_is_an_exit_code(call, tmp_path):
    """Its records are kept; the same command says so again, and ends well once there is room for the report."""
    ones = ("run", "one.toml", "--quiet", "--device", "cpu", "--out", "out")
    taken = tmp_path / "out" / "report.html"
    (taken / "mine").mkdir(parents=True)
    for again in (False, True):
        code, text, _ = call(*ones)
        assert (code, "nothing to do" in text) == (2, again)
        assert "out/report.html: not written (" in text
    assert len(read_records(tmp_path / "out")) == 1
    (taken / "mine").rmdir()
    taken.rmdir()
    assert call(*ones)[0] in (0, 1)
    assert taken.is_file()


@pytest.mark.parametrize("option", sorted(set(re.findall(r"--attack (\S+)", choices.EXAMPLES["evaluate"]))))
def test_attacks_of_the_examples_can_be_built(option):
    (cell,) = evaluation_suite("smallcnn", "digits", [parsed(option)], ["l2"], ["0.5"], base=Path.cwd()).cells
    make("attack", cell.attack, Path.cwd(), norm=cell.norm)
