"""Records of other versions of the format: brought to today's form where that is possible, else left out."""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError

SCHEMA_VERSION = 1

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: Mapping[int, Migration] = {}
"""For a version of the format, what turns a record of it into one of the next version. A change of the format that
raises `SCHEMA_VERSION` adds the step from the version before it, where no field is lost."""


class OtherSchemaError(InputError):
    """A record of another version of the format that cannot be brought to today's. Its cell counts as not measured."""


class RecordWarning(UserWarning):
    """Some record of a results folder is left out."""


OTHER = ".other-version"
"""The ending of a record that was left out and whose cell was measured anew: nothing reads it."""
MOST_WARNINGS = 5
"""So many warnings are printed; a folder of another version may hold thousands of records."""


def warn_left_out(messages: Iterable[str]) -> None:
    """Warn of records that are left out, one warning each."""
    for message in messages:
        warnings.warn(message, RecordWarning, stacklevel=3)


def print_warnings() -> None:
    """From now on, a `RecordWarning` is one line on standard error, without the place in the code.

    After the first few, one more line says that there are others.
    """
    show, printed = warnings.showwarning, itertools.count(1)

    def plainly(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, RecordWarning):
            show(message, category, *where, **more)
        elif (number := next(printed)) <= MOST_WARNINGS:
            print(f"epsbench: warning: {message}", file=sys.stderr)
        elif number == MOST_WARNINGS + 1:
            print("epsbench: warning: more records are left out for the same reason", file=sys.stderr)

    warnings.simplefilter("default", RecordWarning)
    warnings.showwarning = plainly


def migrated(path: Path, text: bytes) -> bytes | None:
    """A record's JSON text in today's form; None where it is of today's version, or no JSON object at all.

    Raises `OtherSchemaError` for a newer version, for one that is no number, and for an older one that `MIGRATIONS`
    do not bring to today's.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return None
    version = tree.get("schema_version", SCHEMA_VERSION) if isinstance(tree, dict) else SCHEMA_VERSION
    if type(version) is not int:  # a Boolean is an int too
        raise OtherSchemaError(left_out(path, text))
    if version == SCHEMA_VERSION:
        return None
    try:
        while version in MIGRATIONS:
            tree = MIGRATIONS[version](tree)
            version += 1
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # not what that version looked like
        raise OtherSchemaError(left_out(path, text)) from error
    if version != SCHEMA_VERSION:
        raise OtherSchemaError(left_out(path, text))
    return json.dumps(tree | {"schema_version": version}).encode()


def left_out(path: Path, text: bytes) -> str:
    """The message for a record of another version, with its text, that cannot be brought to today's."""
    version = json.dumps(json.loads(text)["schema_version"])
    return (
        f"{path}: left out: schema_version {version if len(version) <= 20 else version[:20] + '…'}, this version of "
        f"epsbench reads {SCHEMA_VERSION}; read it with the epsbench that wrote it, or run the suite again: this cell "
        f"is then measured anew, and this file kept as {path.with_suffix(OTHER).name}"
    )


def keep_other_version(path: Path) -> None:
    """Rename the file where it holds a record that is left out, before the cell's new record takes its place."""
    try:
        migrated(path, path.read_bytes())
    except OtherSchemaError:
        path.replace(path.with_suffix(OTHER))
