"""The command line: verbs, exit codes, and no traceback for what the user can put right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from epsbench.attacks.norms import NORMS
from epsbench.harness import choices, cli
from epsbench.harness.plan.suite import schema_text
from epsbench.harness.report.build import FORMATS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def call(shell, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return shell


def test_help_names_every_verb(call):
    code, out, _ = call("--help")
    assert code == 0
    assert all(verb in out for verb in ("run", "plan", "report", "check", "compare", "list", "schema"))


@pytest.mark.parametrize("verb", ["run", "plan", "report", "check", "compare", "list", "schema"])
def test_every_verb_has_help(verb):
    assert CliRunner().invoke(cli.app, [verb, "--help"]).exit_code == 0


def test_choices_are_what_there_is():
    assert tuple(choices.Format) == tuple(FORMATS)
    assert tuple(NORMS) == choices.NORM_NAMES


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("attacks", "relative_step_size = 0.25"), ("defenses", "eps = 8/255"), ("models", "timm:NAME"),
        ("datasets", "54,000"), ("suites", "quickstart"), ("", "mi-fgsm"),
    ],
)  # fmt: skip
def test_list_shows_what_there_is(call, kind, shown):
    code, out, _ = call("list", *([kind] if kind else []))
    assert code == 0
    assert shown in out


def test_plan_counts_cells_and_jobs(call, tmp_path):
    code, out, _ = call("plan", "quickstart", "--limit", 7)
    assert code == 0
    assert "28 cells in 4 jobs: 0 done" in out
    assert "smallcnn" in out
    assert not (tmp_path / "results").exists()


def test_schema_is_the_committed_one(call):
    code, out, _ = call("schema")
    assert (code, out) == (0, schema_text())
    assert json.loads(out)["title"] == "epsbench suite"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "quickstar"), "epsbench: quickstar: no file and no shipped suite; did you mean 'quickstart'?"),
        (("run", "gone.toml"), "epsbench: gone.toml: there is no such suite file"),
        (("check", "gone.toml"), "epsbench: gone.toml"),
        (("run", "quickstart", "--out", "/dev/null/x"), "results cannot be written there"),
        (("plan", "quickstart", "--limit", "0"), "limit"),
        (("run", "quickstart", "--precision", "int8"), "int8"),
        (("run",), "SUITE"),
        (("nonsense",), "nonsense"),
        (("list", "attack"), "attack"),
    ],
)
def test_what_the_user_can_put_right_exits_with_2_and_no_traceback(call, arguments, message):
    code, out, err = call(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err + out


def test_every_message_is_a_line_of_its_own(call, tmp_path):
    (tmp_path / "bad.toml").write_text('[robustness]\ndata = "digit"\nlimit = 0\nmatrix = { model = "x" }\n')
    code, _, err = call("plan", "bad.toml")
    assert code == 2
    assert len(err.splitlines()) == 5
    assert all(line.startswith(f"epsbench: {tmp_path / 'bad.toml'}: robustness.") for line in err.splitlines())


WITHOUT = """
import sys
from epsbench.harness.cli import main
try:
    main()
finally:
    slow = {forbidden} & sys.modules.keys()
    assert not slow, slow
"""
SLOW = {"torch", "torchvision", "timm", "scipy", "pandas", "matplotlib"}
"""Packages whose import takes longer than what a verb that only reads does. `make bench` measures the verbs."""


def without(*packages: str) -> str:
    """A script that is the command line, and fails where it has imported one of these packages."""
    return WITHOUT.format(forbidden=set(packages))


@pytest.mark.parametrize(
    ("arguments", "packages"),
    [
        (["--help"], SLOW | {"numpy", "pydantic"}),
        (["list"], SLOW),
        (["plan", "mnist", "--out", "not-there"], SLOW),
    ],
)
def test_what_only_reads_imports_nothing_slow(arguments, packages):
    subprocess.run([sys.executable, "-c", without(*packages), *arguments], cwd=ROOT, check=True, capture_output=True)


TINY = """
[robustness]
data = "digits"
limit = 40
training = { epochs = 1 }
matrix = { model = "smallcnn", attack = ["noise", "fgsm"], eps = 0.1 }
"""


def test_a_recorded_suite_is_reported_again_without_torch(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    command = [
        sys.executable,
        "-m",
        "epsbench",
        "run",
        tmp_path / "tiny.toml",
        "--out",
        tmp_path / "out",
        "--quiet",
    ]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert len(list((tmp_path / "out" / "cells").glob("*.json"))) == 2, first.stderr
    again = subprocess.run(
        [sys.executable, "-c", without("torch"), *command[3:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert again.returncode == first.returncode
    assert "smallcnn" in again.stdout
    newest = max(json.loads(path.read_text())["finished"] for path in (tmp_path / "out" / "cells").glob("*.json"))
    recorded = f"nothing to do: all 2 cells were recorded by {newest[:16].replace('T', ' ')} UTC"
    assert again.stdout.splitlines()[0] == recorded


def test_a_plan_says_what_is_trained_and_what_is_as_given(call, tmp_path):
    axes = 'model = "smallcnn", attack = "noise", eps = 0.1, subset = ["all", "first-half"]'
    part = f'[robustness]\ndata = "digits"\ntraining = {{ epochs = 3 }}\nmatrix = {{ {axes} }}\n'
    (tmp_path / "trained.toml").write_text(part)
    (tmp_path / "given.toml").write_text(part.replace("epochs = 3", "epochs = 0"))
    _, out, _ = call("plan", "trained.toml")
    assert "trains 3 epochs on 1,197 images" in out
    assert "trains 3 epochs on 598 images" in out
    assert "trains 3 epochs on 20 images" in call("plan", "trained.toml", "--limit", 40)[1]
    _, out, _ = call("plan", "given.toml")
    assert "as given" in out
    assert "trains" not in out


def test_a_plan_knows_the_weights_of_another_folder(call, tmp_path):
    axes = 'model = "smallcnn", attack = "noise", eps = 0.1'
    (tmp_path / "one.toml").write_text(
        f'[robustness]\ndata = "digits"\ntraining = {{ epochs = 1 }}\nmatrix = {{ {axes} }}\n'
    )
    weights = ("--weights-folder", str(tmp_path / "weights"))
    assert "trains 1 epoch" in call("plan", "one.toml", *weights)[1]
    assert call("run", "one.toml", "--out", "measured", "--limit", 64, *weights)[0] == 0
    _, out, _ = call("plan", "one.toml", "--out", "fresh", "--limit", 64, *weights)
    assert "trained: 1 epoch" in out
    assert "training" not in out.splitlines()[-1]  # of the time to do
    assert "trains 1 epoch" in call("plan", "one.toml", "--out", "fresh", "--limit", 64)[1]


def test_an_ending_chooses_the_format(call, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    assert call("run", "tiny.toml", "--quiet")[0] in (0, 1)
    assert call("report", "results/tiny", "--output", "r.json")[0] == 0
    assert len(json.loads((tmp_path / "r.json").read_text())) == 2


def test_a_plan_shows_markup_in_names_as_it_is(call, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def net(channels=1, note=''):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    note = "[bold]x[/bold][/red]:smile:\\u001b[31m"
    (tmp_path / "s[bold].toml").write_text(
        TINY.replace('"smallcnn"', f'{{ name = "mine.py:net", note = "{note}" }}'), encoding="utf-8"
    )
    code, out, err = call("plan", "s[bold].toml")
    assert code == 0, err
    assert "plan of s[bold]" in out
    cells = "".join(line.split("│")[2].strip() for line in out.splitlines() if line.startswith("│"))
    assert "[bold]x[/bold][/red]:smile:\\x1b[31m" in cells
    assert "\x1b" not in out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_a_terminal_cannot_show_is_replaced(tmp_path, encoding):
    bound = "[[robustness.expect]]\nclean_accuracy = { min = 0.0 }\n"
    (tmp_path / "tiny.toml").write_text(f'description = "ε → ∞, 数字"\n{TINY}{bound}', encoding="utf-8")

    def stdout(*arguments: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "epsbench", *arguments], cwd=tmp_path, capture_output=True, check=False,
            env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        assert b"Traceback" not in done.stderr
        return done.stdout

    assert b"smallcnn" in stdout("plan", "tiny.toml")
    assert b"Robust accuracy on digits, L?" in stdout("run", "tiny.toml")
    assert stdout("run", "tiny.toml").startswith(b"nothing to do: all 2 cells")
    for arguments in (["report", "results/tiny"], ["report", "results/tiny", "--format", "csv"], ["list"]):
        assert stdout(*arguments)
    assert b"bounds hold" in stdout("check", "tiny.toml")
    assert b"no difference" in stdout("compare", "results/tiny", "results/tiny")
    page = (tmp_path / "results" / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "L∞" in page
