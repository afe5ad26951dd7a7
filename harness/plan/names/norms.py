"""Norms by name: the built-in ones, and classes of the user's own."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from epsbench.attacks.norms import NORMS, Norm
from epsbench.harness.errors import FAILURES, InputError
from epsbench.harness.plan.names.loading import load_object
from epsbench.harness.plan.names.places import file_of, known_or_own
from epsbench.harness.plan.names.raised import what_was_raised
from epsbench.harness.plan.names.versions import code_version


def read_norm(name: Any, base: Path) -> str:
    """The name of a norm, its file's path relative to ``base``.

    A name is that of a built-in, ``path/to/file.py:Class`` or ``module:Class``. Raises `InputError` for any other, and
    for what is no norm.
    """
    spelled = known_or_own(name, base, "norm", NORMS, "path/to/file.py:Class")
    norm_of(spelled, base)
    return spelled


def norm_of(name: str, base: Path) -> Norm:
    """The norm of this name. Raises `InputError` if it is none."""
    if name in NORMS:
        return NORMS[name]
    kind = load_object(name, base)
    if not (isinstance(kind, type) and issubclass(kind, Norm)):
        raise InputError(f"{name!r} is no norm: it must be a class derived from epsbench.attacks.norms.Norm")
    if missing := sorted(kind.__abstractmethods__):
        raise InputError(f"{name!r} does not define {' and '.join(missing)}, which every norm needs")
    own = inspect.getattr_static(kind, "name", None)
    if not isinstance(own, str) or not own or own in NORMS:
        reason = f"is called {own!r}, as a built-in norm is" if own in NORMS else "has no name"
        raise InputError(f'{name!r} {reason}; give it a name of its own: name = "my-norm" in the class')
    try:
        norm: Norm = kind()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name!r} cannot be made without arguments ({error})") from error
    except FAILURES as error:
        raise InputError(f"{name!r}: making it raises {what_was_raised(error)}; correct the file") from error
    return norm


def norm_versions(name: str, base: Path) -> dict[str, str]:
    """The version of a norm; empty for a built-in of version 1, so that records made before norms had versions keep
    their ids."""
    if name in NORMS:
        version = NORMS[name].version
        return {} if version == 1 else {"norm": str(version)}
    file = file_of(name, base)
    return {"norm": code_version(type(norm_of(name, base)), *([file] if file else []))}
