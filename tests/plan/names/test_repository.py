"""A user's repository: her imports find her files, hers alone, and an edit in any of them is another version."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.isolation import isolated
from epsbench.harness.plan.names.imports import imports_of
from epsbench.harness.plan.names.installed import installed, is_installed
from epsbench.harness.plan.names.loading import load_object
from epsbench.harness.plan.names.registry import name_with_parameters, versions

NET = """
from torch import nn
from models.resnet import WIDTH
import utils

def load(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, num_classes))
"""


def write(folder: Path, **files: str) -> Path:
    """Python files by name, with ``__`` for a slash and ``INIT`` for ``__init__``."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/").replace("INIT", "__init__") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def repo(tmp_path):
    folder = tmp_path / "hers"
    (folder / ".git").mkdir(parents=True)
    return write(folder, victim=NET, models__resnet="WIDTH = 8\n", utils="import attacks.mine\n", attacks__mine="")


def version(folder: Path, name: str = "victim.py:load") -> str:
    return versions("model", name_with_parameters("model", name, folder), folder)["model"]


def test_her_models_and_attacks_are_found_and_not_ours(repo):
    load = load_object("victim.py:load", repo)
    assert load.__globals__["WIDTH"] == 8
    assert Path(load.__globals__["utils"].attacks.mine.__file__) == repo / "attacks" / "mine.py"
    assert not {"models", "utils", "attacks", "victim"} & set(sys.modules)


def test_a_victim_deep_in_a_project_finds_what_lies_at_its_root(tmp_path):
    (tmp_path / "pyproject.toml").touch()
    write(
        tmp_path, eval__victim="import helper\nfrom nets.small import SIZE\n", eval__helper="", nets__small="SIZE = 3\n"
    )
    assert load_object("eval/victim.py:SIZE", tmp_path) == 3


def test_lazy_imports_find_her_files_later(repo):
    write(repo, victim="def load():\n    from models.resnet import WIDTH\n    import models.resnet as r\n"
                       "    import importlib\n    name = 'resnet'\n"
                       "    return WIDTH, r.WIDTH, importlib.import_module(f'models.{name}').WIDTH\n")  # fmt: skip
    load = load_object("victim.py:load", repo)
    other = write(repo.parent / "other", victim="from models.resnet import WIDTH\n", models__resnet="WIDTH = 5\n")
    assert load_object("victim.py:WIDTH", other) == 5
    assert load() == (8, 8, 8)


def test_two_repositories_do_not_see_each_other(tmp_path):
    one, two = (write(tmp_path / name, victim="import helper\nvalue = helper.value\n", helper=f"value = {name!r}\n")
                for name in ("one", "two"))  # fmt: skip
    (two / "only_here.py").touch()
    assert [load_object("victim.py:value", folder) for folder in (one, two, one)] == ["one", "two", "one"]
    write(one, reaching="import only_here\n")
    with pytest.raises(InputError, match=r"install 'only_here', or put it beside reaching\.py"):
        load_object("reaching.py:x", one)


def test_relative_imports_inside_a_package_of_hers(tmp_path):
    write(
        tmp_path,
        pkg__INIT="",
        pkg__sub__INIT="from ..base import BASE\n",
        pkg__base="BASE = 2\n",
        pkg__sub__victim="from . import BASE\nfrom ..base import BASE as again\nimport pkg\nboth = BASE + again\n",
    )
    assert load_object("pkg/sub/victim.py:both", tmp_path) == 4


def test_a_file_that_shares_its_name_with_a_package_is_itself(tmp_path):
    write(tmp_path, models="from models.deep import X\nY = X + 1\n", models__INIT="", models__deep="X = 1\n")
    assert load_object("models.py:Y", tmp_path) == 2


def test_an_installed_package_wins_over_a_folder_without_init(tmp_path):
    (tmp_path / "yaml").mkdir()
    (tmp_path / "numpy").mkdir()
    write(tmp_path, net="import numpy\nsize = numpy.zeros(3).size\n")
    assert load_object("net.py:size", tmp_path) == 3


@pytest.mark.parametrize("edited", ["victim", "models__resnet", "utils", "attacks__mine"])
def test_an_edit_in_any_file_she_imports_is_another_version(repo, edited):
    before = version(repo)
    path = repo / (edited.replace("__", "/") + ".py")
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n# A comment alone.\n", encoding="utf-8")
    assert version(repo) == before
    path.write_text(text + "\nCHANGED = True\n", encoding="utf-8")
    assert version(repo) != before
    path.write_text(text, encoding="utf-8")
    assert version(repo) == before


def test_an_edit_in_a_file_that_is_read_at_import_is_another_version_of_what_reads_it_alone(repo):
    (repo / "data").mkdir()
    table = repo / "data" / "table.json"
    table.write_text("8", encoding="utf-8")
    write(repo, models__resnet="import json\nfrom pathlib import Path\n"
                               "WIDTH = json.loads((Path(__file__).parents[1] / 'data/table.json').read_text())\n",
          other="from torch import nn\n\ndef load():\n    return nn.Identity()\n")  # fmt: skip
    before, other = version(repo), version(repo, "other.py:load")
    table.write_text("9", encoding="utf-8")
    assert version(repo) != before
    assert version(repo, "other.py:load") == other
    assert load_object("victim.py:WIDTH", repo) == 9
    table.write_text("8", encoding="utf-8")
    assert version(repo) == before


def test_an_edit_elsewhere_is_not(repo):
    write(repo, models__vgg="WIDTH = 1\n", train="import models.vgg\n")
    before = version(repo)
    write(repo, models__vgg="WIDTH = 2\n", train="", notes="x = 1\n")
    assert version(repo) == before


@pytest.mark.parametrize(
    "imports",
    ["def later():\n    import hidden\n", "def later():\n    from hidden import x\n",
     "import importlib\nimportlib.import_module('hidden')\n",
     "try:\n    import hidden\nexcept ImportError:\n    pass\n"],
)  # fmt: skip
def test_imports_of_every_spelling_count(tmp_path, imports):
    write(tmp_path, hidden="x = 1\n", net=f"{imports}\ndef load(num_classes=10):\n    return None\n")
    before = version(tmp_path, "net.py:load")
    write(tmp_path, hidden="x = 2\n")
    assert version(tmp_path, "net.py:load") != before


def test_a_name_put_together_at_run_time_may_be_any_module_of_its_package(tmp_path):
    write(
        tmp_path,
        nets__a="x = 1\n",
        nets__b="x = 1\n",
        net="from importlib import import_module\ndef load(name='a'):\n    return import_module('nets.' + name)\n",
    )
    before = version(tmp_path, "net.py:load")
    write(tmp_path, nets__b="x = 2\n")
    assert version(tmp_path, "net.py:load") != before


def test_an_edited_file_is_loaded_again_and_an_unedited_one_once(repo):
    first = load_object("victim.py:load", repo)
    assert load_object("victim.py:load", repo) is first
    write(repo, models__resnet="WIDTH = 9\n")  # as long, and perhaps in the same tick of the clock
    assert load_object("victim.py:load", repo).__globals__["WIDTH"] == 9
    assert first.__globals__["WIDTH"] == 8


def test_what_a_class_of_hers_derives_from_counts_by_its_declared_version(tmp_path, monkeypatch):
    from epsbench.attacks.pgd import PGD

    write(tmp_path, mine="from dataclasses import dataclass\nfrom epsbench.attacks.pgd import PGD\n\n"
                         "@dataclass(frozen=True, kw_only=True)\nclass Mine(PGD):\n    steps: int = 3\n")  # fmt: skip
    named = name_with_parameters("attack", "mine.py:Mine", tmp_path)
    before = versions("attack", named, tmp_path)
    monkeypatch.setattr(PGD, "version", "another")
    assert versions("attack", named, tmp_path) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [("attacks.pgd:PGD", "epsbench.attacks.pgd"), ("models.catalogue:SmallCNN", "epsbench.models.catalogue"),
     ("harness.spec.cell:Cell", "epsbench.harness")],
)  # fmt: skip
def test_an_old_address_of_ours_gets_the_new_one(tmp_path, old, new):
    with pytest.raises(InputError, match=f"write {new!r} instead of"):
        load_object(old, tmp_path)
    write(tmp_path, mine=f"from {old.partition(':')[0]} import {old.partition(':')[2]}\n")
    with pytest.raises(InputError, match="write 'epsbench"):
        load_object("mine.py:x", tmp_path)


def test_her_files_are_left_as_they_are(repo):
    load_object("victim.py:load", repo)
    assert not list(repo.rglob("__pycache__"))


def test_a_broken_file_is_named_and_loads_once_it_is_mended(repo):
    write(repo, models__resnet="WIDTH = 1 / 0\n")
    with pytest.raises(InputError, match=r"victim.py does not import \(ZeroDivisionError"):
        load_object("victim.py:load", repo)
    write(repo, models__resnet="WIDTH = 4\n")
    assert load_object("victim.py:load", repo).__globals__["WIDTH"] == 4


def test_another_version_of_an_installed_package_she_imports_is_another_version(repo, monkeypatch):
    from epsbench.harness.plan.names import installed as packages
    from epsbench.harness.plan.names import versions

    write(repo, utils="import attacks.mine\nimport sklearn.datasets\nimport numpy\n")
    before = version(repo)
    assert packages.package_version("sklearn") == metadata.version("scikit-learn")
    monkeypatch.setattr(versions, "package_version", lambda top: "99")
    changed = version(repo)
    assert changed != before
    monkeypatch.setattr(versions, "package_version", lambda top: {"sklearn": "99"}[top])  # of none but this one
    assert version(repo) == changed


@pytest.mark.parametrize("method", ["loss", "targeted"])
def test_a_method_of_an_attack_that_nothing_calls_is_refused_with_what_to_write(tmp_path, method):
    write(tmp_path, mine="from dataclasses import dataclass\nfrom epsbench.attacks import PGD\n\n"
                         "@dataclass(frozen=True, kw_only=True)\nclass Mine(PGD):\n"
                         f"    def {method}(self, logits, y):\n        return logits\n")  # fmt: skip
    with pytest.raises(InputError, match=rf"'mine\.py:Mine' defines {method}\(\), which nothing calls: .*perturb\("):
        name_with_parameters("attack", "mine.py:Mine", tmp_path)


def test_a_class_that_derives_from_an_installed_one_is_versioned_by_that_package(tmp_path):
    write(
        tmp_path,
        mine="from torchvision.models.resnet import ResNet, BasicBlock\n\nclass Mine(ResNet):\n"
        "    def __init__(self, num_classes=10):\n"
        "        super().__init__(BasicBlock, [1, 1, 1, 1])\n",
    )
    before = version(tmp_path, "mine.py:Mine")
    assert imports_of(tmp_path / "mine.py").files == {(tmp_path / "mine.py").resolve()}
    assert imports_of(tmp_path / "mine.py").installed == {"torchvision"}
    assert version(tmp_path, "mine.py:Mine") == before


def test_packages_of_another_environment_on_the_path_are_installed_too(tmp_path, monkeypatch):
    other = tmp_path / "lib" / "site-packages"
    other.mkdir(parents=True)
    (other / "elsewhere_package.py").write_text("import sys\nsys.path.append('.')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(other))
    installed.cache_clear()
    try:
        assert is_installed(other / "elsewhere_package.py")
        assert not is_installed(tmp_path / "mine.py")
    finally:
        installed.cache_clear()


def test_an_attack_in_an_installed_package_is_versioned_by_that_packages_files(tmp_path, monkeypatch):
    site = tmp_path / "site"
    write(
        site,
        plugin__INIT="",
        plugin__base="SHARE = 0.5\n",
        other__INIT="",
        plugin__attack="import other\nfrom plugin.base import SHARE\nfrom .base import SHARE as again\n",
    )
    for module in ("imports", "installed"):
        monkeypatch.setattr(f"epsbench.harness.plan.names.{module}.installed", lambda: (site.resolve(),))
    monkeypatch.syspath_prepend(str(site))
    imports = imports_of(site / "plugin" / "attack.py")
    assert {path.name for path in imports.files} == {"attack.py", "base.py", "__init__.py"}
    assert imports.installed == {"other"}


FORMS = {
    "relative": "import models\n\ndef load():\n    return models.get('part')\n",
    "star": "from models import *\n",
    "variable": "import importlib\nname = 'models.part'\nimportlib.import_module(name)\n",
    "keyword": "from importlib import import_module\narch = 'part'\nimport_module(name=f'models.{arch}')\n",
    "join": "from importlib import import_module\nimport_module('.'.join(['models', 'part']))\n",
    "alias": "from importlib import import_module as im\nim('models.part')\n",
    "with package": "from importlib import import_module\nimport_module('.part', 'models')\n",
    "by path": "from importlib.util import spec_from_file_location\nspec_from_file_location('x', 'models/part.py')\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_an_edit_counts_however_the_file_is_imported(tmp_path, form):
    get = "from importlib import import_module\ndef get(n):\n    return import_module(f'.{n}', __name__)\n"
    write(
        tmp_path,
        models__INIT=f"__all__ = ['part']\n{get}",
        models__part="x = 1\n",
        net=f"{FORMS[form]}\ndef build():\n    return None\n",
    )
    load_object("net.py:build", tmp_path)
    before = version(tmp_path, "net.py:build")
    write(tmp_path, models__part="x = 2\n")
    assert version(tmp_path, "net.py:build") != before


def test_a_whole_model_is_unpickled_with_her_classes_and_no_name_stays_behind(tmp_path):
    net = "from torch import nn\n\nclass Net(nn.Module):\n    pass\n"
    load = ("import torch\nfrom pathlib import Path\n\ndef load():\n"
            "    return torch.load(Path(__file__).with_name('whole.pt'), weights_only=False)\n")  # fmt: skip
    for name in ("one", "two"):
        write(tmp_path / name, models__net=net, victim=load)
        script = "import torch\nfrom models.net import Net\ntorch.save(Net(), 'whole.pt')\n"
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path / name, check=True)
    networks = []
    for name in ("one", "two"):
        build = load_object("victim.py:load", tmp_path / name)
        with isolated(0):
            networks.append(build())
    assert type(networks[0]) is not type(networks[1])
    assert type(networks[0]).__module__.endswith("models.net")
    assert "models.net" not in sys.modules
