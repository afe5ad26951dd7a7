"""A file that a suite names is looked for beside the suite, and has one spelling whatever the suite writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from epsbench.harness.cli import app
from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.names.places import in_one_spelling
from epsbench.harness.plan.suite import load_suite
from epsbench.models.catalogue import SmallCNN

SUITE = """
[robustness]
data = "digits"
[robustness.matrix]
model = {{ name = "file:{path}", architecture = "smallcnn" }}
attack = "fgsm"
eps = 0.1
"""
NET = """
from torch import nn

def load(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder with a suite's folder and another one; weights lie beside the suite."""
    folder = tmp_path / "suites"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    torch.save(SmallCNN().build(DATASETS["digits"]).state_dict(), folder / "best.pt")
    (folder / "net.py").write_text(NET, encoding="utf-8")
    (tmp_path / "linked").symlink_to(folder)
    return tmp_path


def identity(folder: Path, text: str) -> tuple[str, str]:
    (folder / "s.toml").write_text(text, encoding="utf-8")
    (cell,) = load_suite(str(folder / "s.toml")).cells
    return cell.id, cell.model.name


@pytest.mark.parametrize(
    "spelling",
    ["best.pt", "./best.pt", "deep/../best.pt", "../suites/best.pt", "{}/suites/best.pt", "{}/linked/best.pt"],
)
def test_the_spelling_of_a_path_is_no_part_of_an_id(project, monkeypatch, spelling):
    folder = project / "suites"
    expected = identity(folder, SUITE.format(path="best.pt"))
    monkeypatch.chdir(project / "elsewhere")
    assert identity(folder, SUITE.format(path=spelling.format(project))) == expected
    own = SUITE.replace('{{ name = "file:{path}", architecture = "smallcnn" }}', '"{path}:load"')
    of_code = identity(folder, own.format(path="net.py"))
    again = identity(folder, own.format(path=spelling.format(project).replace("best.pt", "net.py")))
    assert again == of_code
    assert again[1] == "net.py:load"


def test_a_file_beside_the_suite_comes_before_one_in_the_working_folder(project, monkeypatch):
    expected = identity(project / "suites", SUITE.format(path="best.pt"))
    (project / "elsewhere" / "best.pt").write_bytes(b"another file")
    monkeypatch.chdir(project / "elsewhere")
    assert identity(project / "suites", SUITE.format(path="best.pt")) == expected


def test_a_file_in_the_working_folder_alone_is_found_and_named_from_the_suite(project, monkeypatch):
    (project / "suites" / "best.pt").rename(project / "elsewhere" / "best.pt")
    (project / "suites" / "net.py").rename(project / "elsewhere" / "net.py")
    monkeypatch.chdir(project / "elsewhere")
    inside = identity(project / "suites", SUITE.format(path="best.pt"))
    assert inside[1] == "file:../elsewhere/best.pt"
    assert in_one_spelling("net.py:load", project / "suites") == "../elsewhere/net.py:load"
    monkeypatch.chdir(project)
    assert identity(project / "suites", SUITE.format(path="../elsewhere/best.pt")) == inside


@pytest.mark.parametrize("name", ["file:gone.pt", "gone.py:load"])
def test_the_message_names_both_places(project, monkeypatch, name):
    monkeypatch.chdir(project / "elsewhere")
    file = name.removeprefix("file:").partition(":")[0]
    with pytest.raises(InputError) as raised:
        identity(project / "suites", SUITE.format(path="gone.pt").replace("file:gone.pt", name))
    text = str(raised.value)
    assert f"{project}/suites/{file} cannot be read (No such file or directory)" in text
    assert f"there is no {project}/elsewhere/{file} either" in text
    assert "give a path relative to the suite's folder" in text


def test_one_file_under_two_spellings_is_one_model(project):
    both = SUITE.replace("{{", "[{{").replace("}}", '}}, {{ name = "file:./{path}", architecture = "smallcnn" }}]')
    with pytest.raises(InputError, match="entry 1 repeats entry 0"):
        identity(project / "suites", both.format(path="best.pt"))


def test_a_plan_refuses_weights_that_do_not_fit(project, monkeypatch):
    monkeypatch.chdir(project)
    identity(
        project / "suites",
        SUITE.format(path="best.pt").replace('"smallcnn"', '{{ name = "smallcnn", width = 8 }}'.format()),
    )
    done = CliRunner().invoke(app, ["plan", "suites/s.toml"])
    assert isinstance(done.exception, InputError)
    assert "cannot be built for digits: weights" in str(done.exception)
    identity(project / "suites", SUITE.format(path="best.pt"))
    assert CliRunner().invoke(app, ["plan", "suites/s.toml"]).exit_code == 0
