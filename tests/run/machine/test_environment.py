"""A record names the commit of the repository under test, and no path."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from epsbench.harness.plan.names.places import folders_of
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.machine.environment import describe

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *author, "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "model.py").write_text("X = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_the_commit_is_that_of_the_folder_with_the_users_code(checkout):
    described = describe(CPU, checkout / "mine" / "deep")
    assert described["repository"] == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    assert described["git"] == describe(CPU)["git"]
    assert str(checkout) not in json.dumps(described)
    (checkout / "mine" / "model.py").write_text("X = 2\n")
    assert describe(CPU, checkout / "mine")["repository"]["dirty"] is True


def test_the_users_index_is_left_alone(checkout):
    """`git status` writes what it learns of touched files, under a lock that a killed process leaves for good."""
    os.utime(checkout / "mine" / "model.py", (1, 1))
    index = checkout / ".git" / "index"
    before = index.read_bytes()
    assert describe(CPU, checkout / "mine")["repository"]["dirty"] is False
    assert index.read_bytes() == before
    git(checkout, "status", "--porcelain")
    assert index.read_bytes() != before


def test_inside_a_git_hook_of_another_checkout_too(checkout, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert describe(CPU, checkout)["repository"]["commit"] == commit


def test_a_suite_elsewhere_names_the_checkout_of_its_model(checkout, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (checkout / "mine" / "net.py").write_text(
        "from torch import nn\ndef net(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    (elsewhere / "suite.toml").write_text(
        f'[robustness]\ndata = "digits"\nmatrix = {{ model = "{checkout}/mine/net.py:net", attack = "noise", eps = 1 }}'
    )
    suite = load_suite(str(elsewhere / "suite.toml"))
    folders = folders_of(suite.cells, suite.base)
    assert folders == (checkout / "mine", elsewhere)
    assert describe(CPU, *folders)["repository"]["commit"] == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("inside", ["suites", ""])
def test_a_suite_of_epsbench_is_no_repository_under_test(inside):
    assert "repository" not in describe(CPU, ROOT / inside)


def test_git_is_asked_about_epsbench_once_a_process_and_about_other_checkouts_each_time(checkout, monkeypatch):
    expected, asked, run = describe(CPU, checkout), [], subprocess.run

    def counted(command, **more):
        asked.append(command[2])
        return run(command, **more)

    monkeypatch.setattr(subprocess, "run", counted)
    assert describe(CPU, checkout, ROOT) == expected
    assert asked == [str(checkout), str(checkout)]  # the commit with the folder, and whether it is clean
    asked.clear()
    assert describe(CPU, ROOT)["git"] == expected["git"]
    assert asked == [str(ROOT)]
    git(checkout, "commit", "-q", "--allow-empty", "-m", "two")
    assert describe(CPU, checkout)["repository"]["commit"] == git(checkout, "rev-parse", "HEAD")


def test_outside_a_checkout_there_is_none(tmp_path):
    assert "repository" not in describe(CPU, tmp_path)
    assert "repository" not in describe(CPU, tmp_path / "gone")
    assert "repository" not in describe(CPU)
