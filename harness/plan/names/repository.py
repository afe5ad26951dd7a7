"""A user's code: importable the way she imports it, and invisible to everyone else's.

Research code is a folder of files that import each other: ``victim.py`` says ``from models.resnet import ResNet18`` and
finds ``models/resnet.py`` because Python runs in that folder. Putting the folder on ``sys.path`` would make that work
for one repository at a time. Here every repository is a private package below `epsbench.user_code`, and the ``import``
statements inside its files look there first, now and later. Folders that her files put on ``sys.path`` themselves are
taken from there into her repository. The name of a package says where its files are, so that other processes, which
unpickle objects of hers, find them too.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from epsbench.harness.isolation import importing
from epsbench.harness.plan.names.packages import PARENT, Borrowed, encoded, without_package
from epsbench.harness.plan.names.reads import Reads, noted
from epsbench.harness.plan.names.roots import OWN_FOLDERS, importable, is_own, is_package, project_of, roots_of
from epsbench.harness.plan.names.stamp import Reading


class Repository:
    """The files below some folders, as the modules of one private package.

    Folders that the files put on ``sys.path`` have a private package each.
    """

    _numbers = itertools.count()

    def __init__(self, roots: Sequence[Path | str], label: str = "") -> None:
        """``roots`` are the folders that absolute imports are looked up in, in this order.

        ``label`` is what another process calls this repository.
        """
        self.roots = [str(root) for root in roots]
        self.label = label or f"r{next(self._numbers)}_{encoded(*self.roots)}"
        self.package = f"{PARENT}.{self.label}"
        self._read: dict[Path, Reading] = {}
        self._owned: dict[str, str] = {}
        self.data: dict[Path, set[Path]] = {}  # which files of her project each of her files read when it was loaded
        self._builtins = vars(builtins) | {"__import__": self._import}
        self._importlib = _Importlib(self)
        self._path = list(sys.path)  # as it was when the folders that her files added were last looked for
        self._first: list[str] = []  # packages of folders that she put before all others on sys.path, latest first
        self._last: list[str] = []  # packages of folders that she put after all others
        self.added: list[str] = []  # those folders, as far as her files added them when they were loaded
        importlib.invalidate_caches()  # files may have come since Python last looked
        self._register(self.package, self.roots)

    def _register(self, package: str, folders: list[str]) -> None:
        module = ModuleType(package, f"The code below {', '.join(folders)}.")
        module.__path__ = folders
        module.__spec__ = spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations, spec.loader = folders, Borrowed(module)
        sys.modules[package] = module
        REPOSITORIES[package] = self

    def add(self, folder: str, *, first: bool) -> None:
        """Look absolute imports up in another folder too."""
        package = f"{self.package}_{'f' if first else 'l'}{encoded(folder)}"
        if package not in REPOSITORIES:
            self._register(package, [folder])
            self._owned.clear()
            if first:
                self._first.insert(0, package)
            else:
                self._last.append(package)

    def _look_at_path(self) -> None:
        """Take folders that her code has put on ``sys.path`` meanwhile. Folders of installed packages stay there."""
        if sys.path == self._path:
            return
        before, self._path = self._path, list(sys.path)
        positions = [position for position, folder in enumerate(sys.path) if folder in before]
        start = min(positions, default=0)
        fresh = [(position < start, folder) for position, folder in enumerate(sys.path) if folder not in before]
        for first, folder in (*reversed([each for each in fresh if each[0]]), *(each for each in fresh if not each[0])):
            if isinstance(folder, str) and Path(folder).is_dir() and not any(Path(folder).glob("*.dist-info")):
                self.add(str(Path(folder).resolve()), first=first)

    @contextmanager
    def _own_path(self) -> Iterator[None]:
        """Take the folders that a file puts on ``sys.path`` from there again: they are for her code alone."""
        before = list(sys.path)
        self._path = list(before)
        try:
            yield
        finally:
            self._look_at_path()
            packages = [*self._first, *self._last]
            self.added = [folder for package in packages for folder in sys.modules[package].__path__]
            sys.path[:] = [
                each for each in sys.path if each in before or str(Path(str(each)).resolve()) not in self.added
            ]
            self._path = list(sys.path)

    def load(self, path: Path) -> ModuleType:
        """The module of a file, run once. Raises whatever the file raises."""
        name = f"{self.package}.{self._name(path)}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path, loader=Source(name, str(path), self))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up while the file still runs
        try:
            if "." in self._name(path):
                importlib.import_module(name.rpartition(".")[0])
            with importing(), self._own_path(), noted() as reads:
                spec.loader.exec_module(module)
            self._keep(reads)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, ModuleNotFoundError):
                raise self._renamed(error) from error
            raise
        return module

    def _keep(self, reads: Reads) -> None:
        """Keep which data files of her project her files have read."""
        for source, data in reads:
            if data.is_file() and data.resolve().is_relative_to(project_of(source)):
                self.data.setdefault(source.resolve(), set()).add(data.resolve())
                self._read.setdefault(data.resolve(), Reading.of(data)[0])

    def is_current(self) -> bool:
        """Whether every file that was read is still what it was."""
        return all(reading.is_current(path) for path, reading in self._read.items())

    def files(self) -> list[Path]:
        """The files that were read so far, code and data."""
        return [*self._read, *(each for read in self.data.values() for each in read)]

    def source(self, path: Path) -> bytes:
        """A file's content; from now on `is_current` looks after it."""
        self._read[path], content = Reading.of(path)
        return content

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """`importlib.import_module` as her code sees it."""
        if not name.startswith(".") and (home := self.home(name.partition(".")[0])):
            name = f"{home}.{name}"
        elif name.startswith(".") and package and (home := self.home(package.partition(".")[0])):
            package = f"{home}.{package}"
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
        home = "" if level else self.home(top)
        if not level and top in OWN_FOLDERS and not home and not importable(top):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)  # not epsbench's own, by its old name
        try:
            if not home:
                module = builtins.__import__(name, globals, locals, fromlist or (), level)
                return self._importlib if module is importlib else module
            module = builtins.__import__(f"{home}.{name}", globals, locals, fromlist or (), 0)
        except ModuleNotFoundError as error:
            raise self._renamed(error) from error
        return module if fromlist else sys.modules[f"{home}.{top}"]

    def home(self, top: str) -> str:
        """The private package that a top-level name is in; empty where the name is not hers.

        A folder without ``__init__.py`` and without Python files, such as logs under a library's name, is only a last
        resort, as it is for Python.
        """
        self._look_at_path()
        if top not in self._owned:
            self._owned[top] = ""  # while other finders are asked, which may ask here
            packages = () if top == "epsbench" else (*self._first, self.package, *self._last)
            self._owned[top] = next((each for each in packages if self._is_in(top, each)), "")
        return self._owned[top]

    def _is_in(self, top: str, package: str) -> bool:
        spec = PathFinder.find_spec(top, sys.modules[package].__path__)
        if spec is None or is_own(spec):
            return False
        folders = spec.submodule_search_locations or ()
        code = spec.origin is not None or any(True for each in folders for _ in Path(each).glob("*.py"))
        if code and package not in self._last:
            return True
        return not importable(top, [folder for each in self._last for folder in sys.modules[each].__path__])

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
        return ModuleNotFoundError(without_package(str(error)), name=without_package(error.name or ""))


REPOSITORIES: dict[str, Repository] = {}
"""Every repository, by the names of its private packages."""
_CURRENT: dict[tuple[Path, ...], Repository] = {}


def repository_of(path: Path) -> Repository:
    """The repository that a file belongs to; a new one where a file of it has changed since it was loaded."""
    roots = roots_of(path)
    known = _CURRENT.get(roots)
    if known is None or not known.is_current():
        known = _CURRENT[roots] = Repository(roots)
    return known


def data_of(path: Path) -> set[Path]:
    """The data files that a file of a user's code has read when it was loaded."""
    return {data for known in _CURRENT.values() for data in known.data.get(path.resolve(), ())}


def added_by(path: Path) -> tuple[Path, ...]:
    """The folders that the files of a file's repository have put on ``sys.path`` while they were loaded."""
    known = _CURRENT.get(roots_of(path))
    return tuple(map(Path, known.added)) if known else ()


class Source(SourceFileLoader):
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


class _Importlib(ModuleType):
    """`importlib` as her code sees it: ``import_module`` finds her modules."""

    def __init__(self, repository: Repository) -> None:
        super().__init__("importlib", importlib.__doc__)
        self.import_module = repository.import_module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)
