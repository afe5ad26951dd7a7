"""Versions of code of installed packages, such as the classes that a network of torchvision is made of."""

from __future__ import annotations

import importlib

import pytest
from torchvision.models import mobilenet_v3_small

from epsbench.harness.plan.names import installed as packages
from epsbench.harness.plan.names import versions
from epsbench.harness.plan.names.imports import imports_of
from epsbench.harness.plan.names.installed import installed, package_files

LIST = "plugin/__init__.py,sha256=1,0\nplugin/net.py,sha256={},99\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The folder of packages of an environment that lies in a project, with the package ``plugin`` in it."""
    site = tmp_path / "project" / "env" / "lib" / "site-packages"
    (site / "plugin").mkdir(parents=True)
    (site / "plugin" / "__init__.py").touch()
    code = "import importlib\n\nclass Net:\n    pass\n\ndef by(name):\n    return importlib.import_module(name)\n"
    (site / "plugin" / "net.py").write_text(code, encoding="utf-8")
    about = site / "plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n", encoding="utf-8")
    (about / "RECORD").write_text(LIST.format(2), encoding="utf-8")
    (tmp_path / "project" / "pyproject.toml").touch()
    (tmp_path / "project" / "mine.py").write_text("X = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    _forget()
    yield site
    _forget()


def _forget():
    installed.cache_clear()
    package_files.cache_clear()
    packages._packages.cache_clear()
    importlib.invalidate_caches()


def test_files_of_a_project_are_none_of_a_package_that_is_installed_in_it(site):
    names = {path.name for path in imports_of(site / "plugin" / "net.py").files}
    assert "net.py" in names
    assert "mine.py" not in names


def test_a_class_of_an_installed_package_has_the_version_of_its_file_and_of_the_list_of_files(site):
    def version():
        _forget()
        return versions.part_version(importlib.import_module("plugin.net").Net)

    before = version()
    assert version() == before
    (site / "plugin-1.0.dist-info" / "RECORD").write_text(LIST.format(3), encoding="utf-8")
    other_list = version()
    with (site / "plugin" / "net.py").open("a", encoding="utf-8") as file:
        file.write("\nEDITED = True\n")
    assert len({before, other_list, version()}) == 3
    (site / "plugin-1.0.dist-info" / "RECORD").unlink()  # without a list the files themselves count
    assert version() == versions.code_version(importlib.import_module("plugin.net").Net)


def test_the_classes_of_a_network_of_torchvision_are_versioned_without_reading_what_they_import(monkeypatch):
    kinds = {type(module) for module in mobilenet_v3_small().modules()}
    read = []
    monkeypatch.setattr(versions, "imports_of", lambda path: read.append(path))
    assert len({versions.part_version(kind) for kind in kinds}) > 1
    assert not read
