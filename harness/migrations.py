"""Records of other versions of the format: brought to today's form where that is possible, else left out."""

from __future__ import annotations

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


def warn_left_out(messages: Iterable[str]) -> None:
    """Warn of records that are left out, one warning each."""
    for message in messages:
        warnings.warn(message, RecordWarning, stacklevel=3)


def print_warnings() -> None:
    """From now on, a `RecordWarning` is one line on standard error, without the place in the code."""
    show = warnings.showwarning

    def plainly(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, RecordWarning):
            print(f"epsbench: warning: {message}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    warnings.simplefilter("default", RecordWarning)
    warnings.showwarning = plainly


def migrated(path: Path, text: bytes) -> bytes | None:
    """A record's JSON text in today's form; None where it is of today's version, or no JSON object at all.

    Raises `OtherSchemaError` for a newer version, and for an older one without `MIGRATIONS` that lead to today's.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return None
    version = tree.get("schema_version", SCHEMA_VERSION) if isinstance(tree, dict) else SCHEMA_VERSION
    if isinstance(version, bool) or not isinstance(version, int) or version == SCHEMA_VERSION:
        return None
    for step in range(version, SCHEMA_VERSION):
        if step not in MIGRATIONS:
            break
        tree = MIGRATIONS[step](tree) | {"schema_version": step + 1}
    if tree["schema_version"] != SCHEMA_VERSION:
        raise OtherSchemaError(
            f"{path}: left out: schema_version {version}, this version of epsbench reads {SCHEMA_VERSION}; read it "
            "with the epsbench that wrote it, or delete the file and run the suite again to measure this cell anew"
        )
    return json.dumps(tree).encode()
