"""A user's objects travel to other processes, her modules can be looked up by name, and ``sys.path`` is hers alone."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from epsbench.harness.isolation import isolated
from epsbench.harness.plan.names.loading import load_object
from epsbench.harness.plan.names.registry import name_with_parameters, versions

VICTIM = """
import importlib
import inspect
import multiprocessing
import pickle
import sys
from dataclasses import dataclass, fields
from typing import get_type_hints

from helper import Images

@dataclass
class Own:
    images: "Images"
    name: str = "own"

def names():
    here = importlib.import_module(__name__)
    assert here is sys.modules[__name__] is sys.modules[Own.__module__]
    assert here.Own is Own
    assert inspect.getsource(Own).startswith("@dataclass\\nclass Own")
    assert inspect.getmodule(Own) is here
    assert get_type_hints(Own) == {"images": Images, "name": str}
    assert [field.name for field in fields(Own)] == ["images", "name"]
    assert pickle.loads(pickle.dumps(Own(Images(2)))) == Own(Images(2))
    return True

def spawned():
    from torch.utils.data import DataLoader

    loader = DataLoader(Images(3), batch_size=2, num_workers=1, multiprocessing_context="spawn")
    return [batch.tolist() for batch in loader]
"""
HELPER = """
from dataclasses import dataclass
import shared

@dataclass
class Images:
    n: int

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return shared.FACTOR * index
"""
ADDS = """
import os, sys
sys.path.{how}os.path.join(os.path.dirname(__file__), "src"))
from utils import NAME

def later():
    import lazily
    return lazily.NAME
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_her_modules_are_found_by_their_names(tmp_path):
    write(tmp_path, victim=VICTIM, helper=HELPER, shared="FACTOR = 3\n")
    assert load_object("victim.py:names", tmp_path)()


@pytest.mark.parametrize("source", ["", "src/"])
def test_a_spawned_worker_loads_her_classes(tmp_path, source):
    adds = "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent / 'src'))\n"
    files = {f"{source.replace('/', '__')}helper": HELPER, f"{source.replace('/', '__')}shared": "FACTOR = 3\n"}
    write(tmp_path, victim=(adds if source else "") + VICTIM, **files)
    program = (
        "from pathlib import Path\n"
        "from epsbench.harness.plan.names.loading import load_object\n"
        "if __name__ == '__main__':\n"
        f"    print(load_object('victim.py:spawned', Path({str(tmp_path)!r}))())\n"
    )
    (tmp_path / "main.py").write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[0, 3], [6]]"


@pytest.mark.parametrize("how", ["insert(0, ", "append("])
def test_two_repositories_that_put_a_folder_on_the_path_share_no_module(tmp_path, how):
    before = list(sys.path)
    one, two = (
        write(tmp_path / name, victim=ADDS.replace("{how}", how), src__utils=f"NAME = {name!r}\n",
              src__lazily="import utils\nNAME = utils.NAME + ' later'\n")
        for name in ("one", "two")
    )  # fmt: skip
    assert [load_object("victim.py:NAME", each) for each in (one, two, one)] == ["one", "two", "one"]
    assert [load_object("victim.py:later", each)() for each in (two, one)] == ["two later", "one later"]
    assert sys.path == before
    assert not {"utils", "lazily"} & set(sys.modules)


def test_a_function_that_puts_a_folder_on_the_path_gets_its_own_modules(tmp_path):
    text = "def load():\n    import sys\n    sys.path.insert(0, {!r})\n    import utils\n    return utils.NAME\n"
    for name in ("one", "two"):
        write(tmp_path / name, victim=text.format(str(tmp_path / name / "src")), src__utils=f"NAME = {name!r}\n")
    names = []
    for name in ("one", "two", "one"):
        with isolated(0):
            names.append(load_object("victim.py:load", tmp_path / name)())
    assert names == ["one", "two", "one"]
    assert "utils" not in sys.modules


def test_installed_packages_win_over_a_folder_behind_them_and_lose_to_one_before(tmp_path):
    for name, how in (("before", "insert(0, "), ("behind", "append(")):
        write(tmp_path / name, victim=ADDS.replace("{how}", how).replace("utils import NAME", "tomllib import *"),
              src__tomllib="NAME = 'hers'\n")  # fmt: skip
    assert load_object("victim.py:NAME", tmp_path / "before") == "hers"
    assert callable(load_object("victim.py:loads", tmp_path / "behind"))


@pytest.mark.parametrize("lazy", [False, True])
def test_a_change_in_a_folder_on_the_path_is_another_version(tmp_path, lazy):
    adds = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent / 'src'))\nimport utils\n"
    )
    body = "".join(f"    {line}\n" for line in adds.splitlines())
    net = "def load():\n{}    from torch import nn\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    write(tmp_path, victim=net.format(body) if lazy else adds + net.format(""), src__utils="A = 1\n")

    def version() -> str:
        return versions("model", name_with_parameters("model", "victim.py:load", tmp_path), tmp_path)["model"]

    first = version()
    with isolated(0):
        load_object("victim.py:load", tmp_path)()
    assert version() == first
    write(tmp_path, src__utils="A = 2\n")
    assert version() != first
    write(tmp_path, src__utils="A = 1\n")
    assert version() == first


def test_a_pickle_names_its_place_whatever_the_place_is_called(tmp_path):
    folder = write(tmp_path / "ein Ort.mit_ü", victim="class Own:\n    pass\n")
    own = pickle.dumps(load_object("victim.py:Own", folder)())
    program = f"import pickle\nprint(type(pickle.loads({own!r})).__qualname__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Own"
