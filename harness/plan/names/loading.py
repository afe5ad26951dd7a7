"""Objects by address: ``module:Object`` and ``path/to/file.py:Object``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import fields, is_dataclass
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from epsbench.harness.errors import FAILURES, InputError, did_you_mean
from epsbench.harness.isolation import importing
from epsbench.harness.plan.names import finders as finders  # whose import makes users' packages importable
from epsbench.harness.plan.names.packages import package_of
from epsbench.harness.plan.names.places import unreadable
from epsbench.harness.plan.names.raised import raised_at
from epsbench.harness.plan.names.repository import repository_of
from epsbench.harness.plan.names.roots import OWN_FOLDERS, OWN_MODULES, OWN_ROOT, is_own

_KNOWN = {"builtins", "epsbench", "fractions", "torch"}


def load_object(address: str, base: Path) -> Any:
    """The object at ``module:Object``, or at ``path/to/file.py:Object`` with the path relative to ``base``.

    A file may import what lies beside it, and what lies at the root of its project (see
    `epsbench.harness.plan.names.repository`). Raises `InputError` where the file, the module or the object is not
    there or does not import.
    """
    place, _, attribute = address.rpartition(":")
    module = _load_file(address, place, base) if place.endswith(".py") else _load_module(address, place, base)
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        hint = did_you_mean(attribute, public) if public else ""
        raise InputError(f"{address!r}: {place} has no {attribute!r}{hint}") from None


def is_users(value: Any) -> bool:
    """Whether a value that a suite names, or one inside it such as its loss, is of a class that is not epsbench's."""
    if isinstance(value, tuple | list):
        return any(map(is_users, value))
    if not is_dataclass(value):
        module = type(value).__module__
        return bool(package_of(module)) or module.partition(".")[0] not in _KNOWN
    own = not type(value).__module__.startswith(OWN_MODULES)
    return own or any(is_users(getattr(value, field.name)) for field in fields(value))


def _load_module(address: str, name: str, base: Path) -> ModuleType:
    if hint := _old_name(name):
        file = _file_of(name, base)
        raise InputError(f"{address!r}: {hint if not file else f'the file is {file}: give {_in_file(address, file)}'}")
    loaded = sys.modules.get(name)
    if loaded is not None and not getattr(getattr(loaded, "__spec__", None), "_initializing", False):
        return loaded  # nothing runs: a suite of many cells asks for the same few modules hundreds of times
    try:
        with importing():
            return importlib.import_module(name)
    except FAILURES as error:
        remedy = f"install it, or give {_in_file(address, _file_of(name, base))}"
        raise InputError(f"{address!r}: cannot import {name!r} ({_reason(error)}); {remedy}") from error


def _file_of(name: str, base: Path) -> str:
    """The file that a module would be below ``base``; empty where there is none."""
    if not all(part.isidentifier() for part in name.split(".")):
        return ""
    place = name.replace(".", "/")
    return next((file for file in (f"{place}.py", f"{place}/__init__.py") if (base / file).is_file()), "")


def _in_file(address: str, file: str) -> str:
    """The address of the same object in a file of this name, where there is one."""
    return f"{file}:{address.rpartition(':')[2]}" if file else "path/to/file.py:Object"


def _load_file(address: str, place: str, base: Path) -> ModuleType:
    try:
        path = (base / place).resolve()
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"{address!r}: {unreadable(place, base, error)}") from error
    try:
        return repository_of(path).load(path)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        remedy = (
            _old_name(missing)
            or f"install {missing.partition('.')[0]!r}, or put it beside {path.name}; "
            "at the root of its project it is found where that has a .git, a pyproject.toml or a README.md"
        )
        raise InputError(f"{address!r}: {path} does not import ({_reason(error)}); {remedy}") from error
    except FAILURES as error:
        raise InputError(f"{address!r}: {path} does not import ({_reason(error)}); correct the file") from error


def _old_name(name: str) -> str:
    """What to write instead of a name that epsbench's modules had before they were one package; else nothing."""
    top = name.partition(".")[0]
    if top not in OWN_FOLDERS:
        return ""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and not is_own(spec):  # a package of the user's own
        return ""
    path = OWN_ROOT.joinpath(*name.split("."))
    there = path.is_dir() or path.with_suffix(".py").is_file()
    now = f"epsbench.{name}" if there else f"epsbench.{top}"
    return f"the modules of epsbench are imported as epsbench.…: write {now!r} instead of {name!r}"


def _reason(error: BaseException) -> str:
    """What an import raised, and the line of the user's code, where the message does not name one."""
    return f"{type(error).__name__}: {error}{'' if isinstance(error, SyntaxError) else raised_at(error)}"
