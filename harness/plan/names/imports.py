"""Which files of a user's a file of hers imports, read from the source: at the top, inside functions, by name.

Read and not observed: what a function imports later counts from the start, and nothing is run.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from epsbench.harness.plan.names.installed import installed, is_installed
from epsbench.harness.plan.names.repository import added_by
from epsbench.harness.plan.names.roots import importable, is_own, roots_of
from epsbench.harness.plan.names.stamp import FileStamp, stamp_of

EVERYTHING = "**"
"""Stands among the names of an import for every file of the project."""

_IMPORTERS = frozenset({"import_module", "__import__", "spec_from_file_location"})
_ALL = "__all__"
_MOST_FILES = 5_000  # of a project that one unreadable import stands for; beyond, its own folder must do
_ELSEWHERE = frozenset({"node_modules", "site-packages", "build", "dist", "venv", "env"})

Mention = tuple[Path | None, str, tuple[str, ...]]
"""An import: the folder it is relative to, if any, the module, and the names taken from it."""


def _project(path: Path, roots: tuple[Path, ...]) -> set[Path]:
    """Every Python file of the project that a file belongs to, without environments and hidden folders."""
    files: set[Path] = set()
    for folder, below, names in os.walk(roots[-1] if roots else path.parent):
        below[:] = [each for each in below if each[0] != "." and each not in _ELSEWHERE
                    and not (Path(folder) / each / "pyvenv.cfg").exists()]  # fmt: skip
        files |= {(Path(folder) / name).resolve() for name in names if name.endswith(".py")}
        if len(files) > _MOST_FILES:
            return {file.resolve() for file in path.parent.glob("*.py")}
    return files


@dataclass
class Imports:
    """What files of a user's import."""

    files: set[Path] = field(default_factory=set)
    """Files of hers, with those of the packages on the way to them."""

    of_epsbench: set[tuple[str, str]] = field(default_factory=set)
    """Modules of epsbench, each with a name taken from it, or with none."""

    installed: set[str] = field(default_factory=set)
    """Top-level names of installed packages."""


def imports_of(path: Path) -> Imports:
    """What a file of a user's imports, directly or through other files of hers."""
    path = path.resolve()
    roots = _roots(path)
    importlib.invalidate_caches()  # files may have come since Python last looked
    whole, pending = Imports({path}), [path]
    while pending:
        direct = _imports(pending.pop(), roots)
        whole.of_epsbench |= direct.of_epsbench
        whole.installed |= direct.installed
        fresh = direct.files - whole.files
        whole.files |= fresh
        pending += fresh
    return whole


def _roots(path: Path) -> tuple[Path, ...]:
    """Where a file's imports are looked up before Python's own places.

    Of an installed package's file, only folders of that package: a project that its environment is in is none of it.
    """
    roots = tuple(dict.fromkeys((*added_by(path), *roots_of(path))))
    if not is_installed(path):
        return roots
    return tuple(root for root in roots if is_installed(root) and root not in installed())


def _imports(path: Path, roots: tuple[Path, ...]) -> Imports:
    """What one file imports itself."""
    direct = Imports()
    files, used = direct.files, direct.of_epsbench
    for folder, name, leaves in _mentions(path, stamp_of(path)):
        top = name.partition(".")[0]
        if leaves == (EVERYTHING,):
            files |= _project(path, roots)
        elif folder is None and top == "epsbench":
            used |= {(name, leaf) for leaf in leaves} or {(name, "")}
        elif folder is not None:
            files |= _resolved([str(folder)], name, leaves)
        else:
            places = [str(root) for root in roots]
            spec = PathFinder.find_spec(top, places)
            if spec is not None and not is_own(spec):
                files |= _resolved(places, name, leaves)
            elif (elsewhere := _elsewhere(top, path)) is not None:
                files |= _resolved(list(elsewhere), name, leaves)
            elif top not in sys.stdlib_module_names:
                direct.installed.add(top)
                if not importable(top) and _changes_path(path, stamp_of(path)):
                    files |= _project(path, roots)  # it may be in a folder that a function puts on sys.path
    return direct


@cache
def _changes_path(path: Path, stamp: FileStamp) -> bool:
    """Whether a file, as it was at that stamp, mentions ``sys.path``."""
    return b"sys.path" in path.read_bytes()


@cache
def _mentions(path: Path, stamp: FileStamp) -> tuple[Mention, ...]:
    """Every import of a file as it was at that stamp; none where Python cannot read it."""
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):  # an extension module, or a file that only a `try` imports
        return ()
    return tuple(_imports_of(tree, path))


def _imports_of(tree: ast.Module, path: Path) -> Iterator[Mention]:
    """Every import below a syntax tree.

    ``*`` among the names stands for every module of a package: ``import_module(f"models.{name}")`` may mean any. A call
    whose module cannot be read from the source may mean every file of the project.
    """
    importers = set(_IMPORTERS)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"importlib", "importlib.util"}:
            importers |= {alias.asname for alias in node.names if alias.name in _IMPORTERS and alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield None, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[node.level - 1] if 0 < node.level <= len(path.parents) else None
            yield folder, node.module or "", tuple(_ALL if alias.name == "*" else alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in importers:
            yield _by_call(node, path)


def _by_call(node: ast.Call, path: Path) -> Mention:
    """What a call of ``import_module`` or the like imports."""
    given = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg in {"name", "package"})]
    text, whole = _beginning(given[0]) if given and _called(node.func) != "spec_from_file_location" else ("", False)
    bare = text.lstrip(".")
    if text.startswith("."):
        package, known = _beginning(given[1]) if len(given) > 1 else ("", False)
        up = len(text) - len(bare) - 1
        if known:
            return None, ".".join([*package.split(".")[: len(package.split(".")) - up], *filter(None, [bare])]), ("*",)
        return path.parents[up], bare if whole else bare.rpartition(".")[0], () if whole else ("*",)
    if whole and text:
        return None, text, ()
    return (None, text.rpartition(".")[0], ("*",)) if "." in text else (None, "", (EVERYTHING,))


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _beginning(node: ast.expr) -> tuple[str, bool]:
    """The text that an expression begins with, and whether that is all of it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value, True
    if isinstance(node, ast.JoinedStr) and node.values:
        return _beginning(node.values[0])[0], False
    if isinstance(node, ast.BinOp):
        left, whole = _beginning(node.left)
        right, rest = _beginning(node.right) if isinstance(node.op, ast.Add) and whole else ("", False)
        return left + right, whole and rest
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return _beginning(node.func.value)[0].partition("{")[0], False
    return "", False


def _resolved(places: list[str], name: str, leaves: tuple[str, ...]) -> set[Path]:
    """The files of a dotted name below some folders: each package on the way, the module, and those of its names."""
    files: set[Path] = set()
    for part in name.split(".") if name else []:
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return files
        files |= _file(spec)
        places = list(spec.submodule_search_locations or ())
    if not name:  # from . import x
        files |= {init for place in places if (init := Path(place) / "__init__.py").is_file()}
    for leaf in leaves:
        if leaf == "*":
            files |= {file.resolve() for place in places for file in Path(place).rglob("*.py")}
        elif leaf == _ALL:
            for each in (spec for name in _all_of(places) if (spec := PathFinder.find_spec(name, places)) is not None):
                files |= _file(each)
        elif places and (spec := PathFinder.find_spec(leaf, places)) is not None:
            files |= _file(spec)
    return files


def _all_of(places: list[str]) -> list[str]:
    """The names that ``from package import *`` takes, where the package lists them as text."""
    names: list[str] = []
    for init in (Path(place) / "__init__.py" for place in places):
        try:
            tree = ast.parse(init.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        lists = (node.value for node in ast.walk(tree) if isinstance(node, ast.Assign)
                 and any(isinstance(target, ast.Name) and target.id == _ALL for target in node.targets))  # fmt: skip
        names += [each.value for value in lists if isinstance(value, ast.List | ast.Tuple) for each in value.elts
                  if isinstance(each, ast.Constant) and isinstance(each.value, str)]  # fmt: skip
    return names


def _file(spec: ModuleSpec) -> set[Path]:
    return {Path(spec.origin).resolve()} if spec.has_location and spec.origin else set()


def _elsewhere(top: str, path: Path) -> tuple[str, ...] | None:
    """Where a top-level name is found that is on the path and neither installed nor Python's; else None.

    The package that the file itself belongs to counts, installed or not.
    """
    if top in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or is_own(spec):
        return None
    locations = [
        *(spec.submodule_search_locations or ()),
        *([spec.origin] if spec.has_location and spec.origin else []),
    ]
    for place in (Path(location).resolve() for location in locations):
        own_package = spec.submodule_search_locations and path.is_relative_to(place)
        if own_package or not any(place.is_relative_to(folder) for folder in installed()):
            return (str(place.parent if place.name != "__init__.py" else place.parent.parent),)
    return None
