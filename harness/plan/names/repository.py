"""A user's code: importable the way she imports it, and invisible to everyone else's.

Research code is a folder of files that import each other: ``victim.py`` says ``from models.resnet import ResNet18`` and
finds ``models/resnet.py`` because Python runs in that folder. Putting the folder on ``sys.path`` would make that work
for one repository at a time. Here every repository is a private package of ``sys.modules``, and the ``import``
statements inside its files look there first, now and later.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from traceback import walk_tb
from types import CodeType, FrameType, ModuleType
from typing import Any, ClassVar

from epsbench.harness.isolation import AFTERWARDS, importing
from epsbench.harness.plan.names.stamp import Reading

OWN_ROOT = Path(__file__).resolve().parents[3]
"""The folder of the package ``epsbench`` itself."""

OWN_FOLDERS = frozenset({"attacks", "harness", "models", "suites"})
"""Folders of epsbench that were importable by these names before there was one package."""

PROJECT_MARKS = ("pyproject.toml", ".git")


class Repository:
    """The files below some folders, as the modules of one private package."""

    _numbers = itertools.count()

    def __init__(self, roots: Sequence[Path]) -> None:
        """``roots`` are the folders that absolute imports are looked up in, in this order."""
        self.roots = [str(root) for root in roots]
        self.package = f"epsbench_user_{next(self._numbers)}"
        self._read: dict[Path, Reading] = {}
        self._owned: dict[str, bool] = {}
        self._builtins = vars(builtins) | {"__import__": self._import}
        self._importlib = _Importlib(self)
        importlib.invalidate_caches()  # files may have come since Python last looked
        module = ModuleType(self.package, f"The code below {', '.join(self.roots)}.")
        module.__path__ = self.roots
        module.__spec__ = ModuleSpec(self.package, None, is_package=True)
        sys.modules[self.package] = module
        _REPOSITORIES[self.package] = self

    def load(self, path: Path) -> ModuleType:
        """The module of a file, run once. Raises whatever the file raises."""
        name = f"{self.package}.{self._name(path)}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path), self))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up while the file still runs
        try:
            if "." in self._name(path):
                importlib.import_module(name.rpartition(".")[0])
            with importing():
                spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, ModuleNotFoundError):
                raise self._renamed(error) from error
            raise
        return module

    def is_current(self) -> bool:
        """Whether every file that was read is still what it was."""
        return all(reading.is_current(path) for path, reading in self._read.items())

    def source(self, path: Path) -> bytes:
        """A file's content; from now on `is_current` looks after it."""
        self._read[path], content = Reading.of(path)
        return content

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """`importlib.import_module` as her code sees it."""
        if not name.startswith(".") and self._owns(name.partition(".")[0]):
            name = f"{self.package}.{name}"
        elif name.startswith(".") and package and self._owns(package.partition(".")[0]):
            package = f"{self.package}.{package}"
        try:
            return importlib.import_module(name, package)
        except ModuleNotFoundError as error:
            raise self._renamed(error) from error

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__` as her files have it: her own modules first, then everything installed."""
        top = name.partition(".")[0]
        if not level and top in OWN_FOLDERS and not self._owns(top) and not importable(top):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)  # not epsbench's own, by its old name
        try:
            if level or not self._owns(top):
                module = builtins.__import__(name, globals, locals, fromlist or (), level)
                return self._importlib if module is importlib else module
            module = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist or (), 0)
        except ModuleNotFoundError as error:
            raise self._renamed(error) from error
        return module if fromlist else sys.modules[f"{self.package}.{top}"]

    def _owns(self, top: str) -> bool:
        """Whether a top-level name is hers.

        A folder without ``__init__.py`` and without Python files, such as logs under a library's name, is only a last
        resort, as it is for Python.
        """
        if top not in self._owned:
            spec = PathFinder.find_spec(top, self.roots) if top != "epsbench" else None
            if spec is None or is_own(spec):
                self._owned[top] = False
            else:
                folders = spec.submodule_search_locations or ()
                code = spec.origin is not None or any(True for each in folders for _ in Path(each).glob("*.py"))
                self._owned[top] = code or not importable(top)
        return self._owned[top]

    def _name(self, path: Path) -> str:
        """A file's module name below the package: dotted where the file lies inside a package of hers."""
        parts = [path.stem.replace(".", "_")]
        folder = path.parent
        while is_package(folder):
            parts.insert(0, folder.name)
            folder = folder.parent
        if len(parts) == 1:
            spec = PathFinder.find_spec(path.stem, self.roots)
            if spec is not None and spec.origin != str(path):  # a package or an earlier folder has that name too
                return f"{parts[0]}__py"
        return ".".join(parts)

    def _renamed(self, error: ModuleNotFoundError) -> ModuleNotFoundError:
        """The error with the names that her code uses."""
        prefix = f"{self.package}."
        return ModuleNotFoundError(str(error).replace(prefix, ""), name=(error.name or "").removeprefix(prefix))


_REPOSITORIES: dict[str, Repository] = {}
_CURRENT: dict[tuple[Path, ...], Repository] = {}


def repository_of(path: Path) -> Repository:
    """The repository that a file belongs to; a new one where a file of it has changed since it was loaded."""
    roots = roots_of(path)
    known = _CURRENT.get(roots)
    if known is None or not known.is_current():
        known = _CURRENT[roots] = Repository(roots)
    return known


def roots_of(path: Path) -> tuple[Path, ...]:
    """The folders that a file's imports are looked up in.

    Its own folder; where that is a package, the folder that holds the package; and the project's root, the nearest
    folder above with a ``pyproject.toml`` or a ``.git``.
    """
    folder = path.resolve().parent
    above = folder
    while is_package(above):
        above = above.parent
    project = next((p for p in (folder, *folder.parents) if any((p / mark).exists() for mark in PROJECT_MARKS)), above)
    return tuple(dict.fromkeys((folder, above, project)))


def is_package(folder: Path) -> bool:
    """Whether a folder is a Python package; the root of epsbench's own checkout is a plain folder here."""
    return (folder / "__init__.py").is_file() and folder != OWN_ROOT and folder != folder.parent


def is_own(spec: ModuleSpec) -> bool:
    """Whether a module is one of epsbench's folders, seen from outside the package."""
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    return any(place and Path(place).resolve().is_relative_to(OWN_ROOT / folder)
               for place in places for folder in OWN_FOLDERS)  # fmt: skip


def importable(top: str) -> bool:
    """Whether Python finds a regular module of this top-level name without her folders, and not as a folder of ours."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module without a spec, such as __main__
        return top in sys.modules
    return spec is not None and spec.origin is not None and not is_own(spec)


def _package_of(frame: FrameType) -> str:
    """The top-level package of the module that a frame runs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def raised_at(error: BaseException) -> str:
    """`` (victim.py, line 12)``: the innermost line of a user's code that an error passed through; or nothing."""
    hers = [
        (Path(frame.f_code.co_filename).name, line)
        for frame, line in walk_tb(error.__traceback__)
        if _package_of(frame) in _REPOSITORIES
    ]
    return f" ({hers[-1][0]}, line {hers[-1][1]})" if hers else ""


class _Source(SourceFileLoader):
    """Runs a file of hers: with her ``import``, and never from bytecode, whose time stamps are a second coarse."""

    def __init__(self, name: str, path: str, repository: Repository) -> None:
        super().__init__(name, path)
        self._repository = repository

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self._repository.source(Path(path)), path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._repository._builtins
        super().exec_module(module)


class _Finder:
    """Finds the modules of private packages."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        repository = _REPOSITORIES.get(name.partition(".")[0])
        if repository is None:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Source(name, spec.loader.path, repository)
            spec.cached = None
        return spec


class _Borrower:
    """Finds her modules by their own names for code that works for hers, such as the unpickling of a model.

    The names are taken away again when her code has run: see `epsbench.harness.isolation.AFTERWARDS`.
    """

    names: ClassVar[set[str]] = set()

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            repository = _REPOSITORIES.get(str(frame.f_globals.get("__name__", "")).partition(".")[0])
            if repository is not None and repository._owns(name.partition(".")[0]):
                try:
                    module = importlib.import_module(f"{repository.package}.{name}")
                except ModuleNotFoundError:
                    return None
                cls.names.add(name)
                return ModuleSpec(name, _Borrowed(module), is_package=hasattr(module, "__path__"))
            frame = frame.f_back
        return None

    @classmethod
    def give_back(cls) -> None:
        """Forget every borrowed name."""
        for name in cls.names:
            sys.modules.pop(name, None)
        cls.names.clear()


class _Borrowed(Loader):
    """Gives a module that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put that of the borrowed name there


sys.meta_path.insert(0, _Finder)
sys.meta_path.append(_Borrower)
AFTERWARDS.append(_Borrower.give_back)


class _Importlib(ModuleType):
    """`importlib` as her code sees it: ``import_module`` finds her modules."""

    def __init__(self, repository: Repository) -> None:
        super().__init__("importlib", importlib.__doc__)
        self.import_module = repository.import_module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)
