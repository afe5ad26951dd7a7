"""A plan with a model of a user's own needs torch once, and is read anew as soon as anything has changed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from epsbench.harness.plan import remembered

NET = """
from pathlib import Path
from torch import nn
from layers import width
SIZE = int((Path(__file__).parent / "size.txt").read_text())

def tiny(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width * SIZE), nn.Linear(width * SIZE, classes))
"""
SUITE = """
[robustness]
data = "digits"
matrix = { model = "net.py:tiny", attack = ["fgsm", "noise"], eps = [0.1, 0.2] }
"""
PLAN = """
import sys
from epsbench.harness.cli import main
sys.argv = ["epsbench", "plan", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EPSBENCH_CACHE", str(tmp_path / "cache"))
    code = tmp_path / "code"
    code.mkdir()
    (code / "net.py").write_text(NET)
    (code / "layers.py").write_text("width = 3\n")
    (code / "size.txt").write_text("2")
    (code / "own.toml").write_text(SUITE)
    time.sleep(0.1)  # what was written a moment ago is not trusted
    return code


def plan(folder: Path, *arguments: str) -> tuple[str, bool]:
    """What the verb prints, and whether it loaded torch."""
    done = subprocess.run(
        [sys.executable, "-c", PLAN, "own.toml", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() in ("True", "False"), done.stderr
    return done.stdout, done.stderr.strip() == "True"


def test_torch_is_loaded_once_and_after_a_change_again(folder):
    first, loaded = plan(folder)
    assert loaded
    again, loaded = plan(folder)
    assert (again, loaded) == (first, False)
    (folder / "layers.py").write_text("width = 4\n")
    time.sleep(0.1)
    other, loaded = plan(folder)
    assert loaded
    assert other != first  # other code: another id of the job
    assert plan(folder) == (other, False)
    assert plan(folder, "--set", "robustness.matrix.eps=[0.3]")[1]


@pytest.mark.parametrize("changed", ["net.py", "size.txt", "own.toml"])
def test_every_file_that_was_read_is_watched(folder, monkeypatch, changed):
    monkeypatch.chdir(folder)
    assert not remembered.load_to_show("own.toml", None, None, [])[1]
    assert remembered.load_to_show("own.toml", None, None, [])[1]
    text = (folder / changed).read_text()
    (folder / changed).write_text(text)
    os.utime(folder / changed, ns=(1, 1))
    assert not remembered.load_to_show("own.toml", None, None, [])[1]


def test_cells_from_the_cache_are_the_same(folder, monkeypatch):
    monkeypatch.chdir(folder)
    first, _ = remembered.load_to_show("own.toml", None, None, [])
    second, known = remembered.load_to_show("own.toml", None, None, [])
    assert known
    assert [(cell.id, cell.weights_key, cell.label()) for cell in second.cells] == [
        (cell.id, cell.weights_key, cell.label()) for cell in first.cells
    ]
    assert second.path == first.path


def test_what_was_written_a_moment_ago_is_not_kept(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(remembered, "JUST_WRITTEN_NS", 600 * 10**9)  # a busy machine is slow between write and read
    (folder / "layers.py").write_text("width = 5\n")
    remembered.load_to_show("own.toml", None, None, [])
    assert not remembered.load_to_show("own.toml", None, None, [])[1]


def test_only_suites_with_code_in_files_are_kept(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("quickstart", "mnist"):
        for _ in range(2):
            assert not remembered.load_to_show(name, None, None, [])[1]


class Trap:
    def __reduce__(self):
        return (os.system, ("echo trapped > trapped",))


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps((1, 2)), pickle.dumps(({}, Trap()))])
def test_a_cache_that_is_no_suite_is_read_over_and_runs_nothing(folder, monkeypatch, content):
    monkeypatch.chdir(folder)
    remembered.load_to_show("own.toml", None, None, [])
    (path,) = (folder.parent / "cache" / "suites").glob("*.pickle")
    path.write_bytes(content)
    suite, known = remembered.load_to_show("own.toml", None, None, [])
    assert not known
    assert len(suite.cells) == 4
    assert not (folder / "trapped").exists()


@pytest.mark.parametrize(
    "axes",
    [
        'augmentation = "elsewhere:flip"',
        'attack = { name = "pgd", loss = "elsewhere:Mine" }',
        'defense = { name = "elsewhere:Loss" }',
    ],
)
def test_code_in_a_module_is_not_watched_so_its_suite_is_not_kept(folder, monkeypatch, axes):
    (folder / "elsewhere.py").write_text(
        "from torch import nn\nfrom epsbench.attacks.losses import Margin as Mine\n"
        "from epsbench.models.defenses import NoDefense as Loss\n"
        "def flip(images, generator):\n    return images\n"
        "def net(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    (folder / "own.toml").write_text(
        SUITE.replace('attack = ["fgsm", "noise"],', "" if "attack" in axes else 'attack = "fgsm",').replace(
            "eps =", f"{axes}, eps ="
        )
    )
    time.sleep(0.1)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for _ in range(2):
        assert not remembered.load_to_show("own.toml", None, None, [])[1]
