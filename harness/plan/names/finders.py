"""How Python finds the modules of users' private packages, in this process and in those that their code starts."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FrameType, ModuleType
from typing import ClassVar

from epsbench.harness.isolation import AFTERWARDS
from epsbench.harness.plan.names.packages import PARENT, Borrowed, decoded, package_of
from epsbench.harness.plan.names.repository import REPOSITORIES, Repository, Source


class _Finder:
    """Finds the modules of private packages."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = package_of(name)
        repository = REPOSITORIES.get(package) if package else None
        if package and repository is None and (repository := _made_elsewhere(package)) is None:
            return None
        if repository is None:
            return None
        if name == package:
            return sys.modules[name].__spec__
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Source(name, spec.loader.path, repository)
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
            repository = REPOSITORIES.get(package_of(str(frame.f_globals.get("__name__", ""))))
            if repository is not None and (home := repository.home(name.partition(".")[0])):
                try:
                    module = importlib.import_module(f"{home}.{name}")
                except ModuleNotFoundError:
                    return None
                cls.names.add(name)
                return ModuleSpec(name, Borrowed(module), is_package=hasattr(module, "__path__"))
            frame = frame.f_back
        return None

    @classmethod
    def give_back(cls) -> None:
        """Forget every borrowed name."""
        for name in cls.names:
            sys.modules.pop(name, None)
        cls.names.clear()


def _made_elsewhere(package: str) -> Repository | None:
    """The repository of a private package that another process has named; None where the name is none."""
    label = package.removeprefix(f"{PARENT}.")
    try:
        number, roots, *added = label.split("_")
        whole = REPOSITORIES.get(f"{PARENT}.{number}_{roots}") or Repository(decoded(roots), f"{number}_{roots}")
        for each in added:
            whole.add(decoded(each[1:])[0], first=each[0] == "f")
    except ValueError:
        return None
    return whole


sys.meta_path.insert(0, _Finder)
sys.meta_path.append(_Borrower)
AFTERWARDS.append(_Borrower.give_back)
