"""Which folders a file of a user's code belongs to, and whether a module is hers, installed, or epsbench's own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Collection
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

OWN_ROOT = Path(__file__).resolve().parents[3]
"""The folder of the package ``epsbench`` itself."""


OWN_FOLDERS = frozenset({"attacks", "harness", "models", "suites"})
"""Folders of epsbench that were importable by these names before there was one package."""


OWN_MODULES = tuple(f"epsbench.{folder}." for folder in sorted(OWN_FOLDERS))
"""What the names of epsbench's own modules begin with."""


PROJECT_MARKS = ("pyproject.toml", ".git")
# What the root of a repository has that was downloaded as an archive; other folders may have it as well.
WEAK_MARKS = ("setup.py", "setup.cfg", "requirements.txt", "environment.yml", "README.md")


def roots_of(path: Path) -> tuple[Path, ...]:
    """The folders that a file's imports are looked up in.

    Its own folder; where that is a package, the folder that holds the package; and the project's root, the nearest
    folder above with a ``pyproject.toml`` or a ``.git``, else with one of `WEAK_MARKS`.
    """
    folder = path.resolve().parent
    above = folder
    while is_package(above):
        above = above.parent
    return tuple(dict.fromkeys((folder, above, _marked(folder, PROJECT_MARKS) or _marked(above, WEAK_MARKS) or above)))


def _marked(folder: Path, marks: tuple[str, ...]) -> Path | None:
    """The nearest folder, from this one upwards, that has one of these files or folders."""
    return next((p for p in (folder, *folder.parents) if any((p / mark).exists() for mark in marks)), None)


def project_of(path: Path) -> Path:
    """The folder of the project that a file belongs to."""
    return roots_of(path)[-1]


def is_package(folder: Path) -> bool:
    """Whether a folder is a Python package; the root of epsbench's own checkout is a plain folder here."""
    return (folder / "__init__.py").is_file() and folder != OWN_ROOT and folder != folder.parent


def is_own(spec: ModuleSpec) -> bool:
    """Whether a module is one of epsbench's folders, seen from outside the package."""
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    return any(place and Path(place).resolve().is_relative_to(OWN_ROOT / folder)
               for place in places for folder in OWN_FOLDERS)  # fmt: skip


def importable(top: str, without: Collection[str] = ()) -> bool:
    """Whether Python finds a regular module of this top-level name without her folders, and not as a folder of ours.

    ``without`` are folders of hers that may be on ``sys.path``.
    """
    try:
        spec = importlib.util.find_spec(top)
        if spec is not None and without and top not in sys.stdlib_module_names:
            spec = PathFinder.find_spec(top, [each for each in sys.path if str(Path(each).resolve()) not in without])
    except (ImportError, ValueError):  # a module without a spec, such as __main__
        return top in sys.modules
    return spec is not None and spec.origin is not None and not is_own(spec)
