"""Objects by address: ``module:Object`` and ``path/to/file.py:Object``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import InputError, did_you_mean

# Importing a user's module runs it: it may raise anything through no fault of epsbench, or even try to exit.
_IMPORT_FAILURES = (Exception, SystemExit)


def load_object(address: str, base: Path) -> Any:
    """The object at ``module:Object``, or at ``path/to/file.py:Object`` with the path relative to ``base``.

    Raises `InputError` where the file, the module or the object is not there or does not import.
    """
    place, _, attribute = address.rpartition(":")
    module = _load_file(address, base / place) if place.endswith(".py") else _load_module(address, place)
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        public = [name for name in vars(module) if not name.startswith("_")]
        hint = did_you_mean(attribute, public) if public else ""
        raise InputError(f"{address!r}: {place} has no {attribute!r}{hint}") from None


def _load_module(address: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except _IMPORT_FAILURES as error:
        raise InputError(
            f"{address!r}: cannot import {name!r} ({_reason(error)}); install it, or give path/to/file.py:Object"
        ) from error


def _load_file(address: str, path: Path) -> ModuleType:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{address!r}: {path} cannot be read ({reason}); the path is relative to the suite's folder"
        ) from error
    # Named after path and content: an edited file is another module, an unedited one is loaded once.
    name = f"epsbench_{hashlib.sha256(str(path.resolve()).encode() + b'|' + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{address!r}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while the file still runs
    try:
        spec.loader.exec_module(module)
    except _IMPORT_FAILURES as error:
        del sys.modules[name]
        raise InputError(f"{address!r}: {path} does not import ({_reason(error)}); mend the file") from error
    return module


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
