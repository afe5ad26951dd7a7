"""The package ``epsbench`` as others import it: its public names, and what comes with them."""

from __future__ import annotations

import doctest
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import epsbench


def fresh(script: str) -> str:
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_is_there():
    for name in epsbench.__all__:
        assert getattr(epsbench, name) is not None
    assert dir(epsbench) == sorted(epsbench.__all__)


def test_an_unknown_name_is_an_attribute_error_that_lists_the_names():
    with pytest.raises(AttributeError, match=r"has no attribute 'evalute'; it has .*load_suite"):
        epsbench.evalute  # noqa: B018


def test_the_example_of_the_package_works():
    assert doctest.testmod(epsbench).failed == 0


def test_import_loads_nothing_heavy():
    loaded = fresh("import sys; before = set(sys.modules); import epsbench; print(*set(sys.modules) - before)").split()
    assert not {"torch", "numpy", "pydantic", "pandas"} & set(loaded)


def test_nothing_else_is_installed_at_the_top_level():
    script = (
        "import importlib.util as u; print([n for n in ('attacks', 'models', 'harness', 'suites') if u.find_spec(n)])"
    )
    assert fresh(f"import sys; sys.path[:] = [p for p in sys.path if p]; {script}").strip() == "[]"


def test_python_m_is_the_command():
    assert "run" in fresh("import sys; sys.argv = ['epsbench', '--help']; import runpy; "
                          "runpy.run_module('epsbench', run_name='__main__')")  # fmt: skip


def test_every_package_is_installed():
    root = Path(epsbench.__file__).parent
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = [path.parent for top in ("attacks", "harness", "models", "suites") for path in (root / top).rglob("*.py")]
    packages = {".".join(("epsbench", *folder.relative_to(root).parts)) for folder in folders}
    assert sorted(packages | {"epsbench"}) == settings["packages"]
    files = {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    declared = {path for package, patterns in settings["package-data"].items() for pattern in patterns
                for path in root.joinpath(*package.split(".")[1:]).glob(pattern)}  # fmt: skip
    assert files == declared
