"""What a class declares as its parameters, and what of it a dataclass would ignore without a word."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any, ClassVar, get_origin

from epsbench.harness.plan.names.roots import OWN_MODULES

_DECORATOR = "@dataclass(frozen=True, kw_only=True)"


def ignored(factory: Any) -> str | None:
    """Why a class derived from a dataclass has other parameters than it seems to have; None where it has not.

    The ``__init__`` of a dataclass knows the fields of classes with the decorator alone. It overwrites a plain class
    attribute of the same name with the default of the field. So an attack would run with other values than its author
    wrote, and nobody would see it.
    """
    if not (isinstance(factory, type) and is_dataclass(factory)):
        return None
    return next(_ignored(factory), None)


def _ignored(factory: type) -> Iterator[str]:
    for kind in factory.__mro__:
        if not is_dataclass(kind) or kind.__module__.startswith(OWN_MODULES):
            continue
        declared, decorated = _declared(kind), "__dataclass_fields__" in vars(kind)
        if "__init__" in vars(kind) and not decorated:
            yield (
                f"{kind.__name__} defines __init__, and records know fields alone: put {_DECORATOR} above the class, "
                "and let its parameters be fields, such as steps: int = 10"
            )
        if declared and not decorated:
            yield (
                f"{kind.__name__} has fields ({', '.join(declared)}) and is no dataclass, so they are ignored: put "
                f"{_DECORATOR} above the class"
            )
        inherited = {field.name: field.type for base in kind.__bases__ if is_dataclass(base) for field in fields(base)}
        for name in sorted(inherited.keys() & vars(kind).keys() - _annotations(kind).keys()):
            value = vars(kind)[name]
            if not isinstance(value, FunctionType | property | classmethod | staticmethod):
                yield (
                    f"{kind.__name__} says {name} = {value!r} without a type, which a dataclass ignores: write "
                    f"{name}: {inherited[name]} = {value!r}"
                )


def _declared(kind: type) -> list[str]:
    """The names that a class gives a type and a default, apart from those of the class alone."""
    types = _annotations(kind).items()
    return [name for name, annotation in types if name in vars(kind) and not _of_class(annotation)]


def _annotations(kind: type) -> dict[str, Any]:
    """The types that a class itself gives its attributes, by name."""
    if sys.version_info >= (3, 14):  # they are computed when they are asked for, and may name what is not imported
        import annotationlib

        return annotationlib.get_annotations(kind, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(kind)


def _of_class(annotation: Any) -> bool:
    return "ClassVar" in annotation if isinstance(annotation, str) else ClassVar in (annotation, get_origin(annotation))
