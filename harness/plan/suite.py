"""Reading a suite file: its cells and expectations, or one error with every problem of the file."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.files import cannot_read
from epsbench.harness.plan.axes.explaining import explain, key_path
from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.changes import Change, apply_changes, read_changes
from epsbench.harness.plan.expand import Expectation, expand
from epsbench.harness.plan.schema import SuiteFile, json_schema
from epsbench.harness.plan.toml import as_toml

__all__ = ["Expectation", "Suite", "json_schema", "load_suite", "schema_text", "shipped_suites"]

_DEEPEST = 12
LARGEST_SUITE = 1 << 20


@dataclass(frozen=True)
class Suite:
    """A suite with its matrix expanded to cells."""

    name: str
    """The file's name without ``.toml``."""
    path: Path
    """The file."""
    description: str
    """The question that the suite asks; the title of its report."""
    cells: tuple[Cell, ...]
    """Every cell, classifiers first, in the order of the axes."""
    expectations: tuple[Expectation, ...]
    """The bounds of ``epsbench check``, in the order of the file."""
    arguments: tuple[str, ...] = ()
    """The options of the command line that changed it: ``("--limit", "100")``."""

    @property
    def base(self) -> Path:
        """The folder that file paths in the suite are relative to."""
        return self.path.parent


def shipped_suites() -> dict[str, Path]:
    """The suites that come with epsbench, by name."""
    from epsbench import suites

    return {path.stem: path for path in sorted(Path(suites.__path__[0]).glob("*.toml"))}


def schema_text() -> str:
    """The JSON Schema of suite files, as committed beside the suites."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def load_suite(
    name_or_path: str, limit: int | None = None, precision: str | None = None, changes: Iterable[str] = ()
) -> Suite:
    """Read a suite by path, or by name when it is a shipped one.

    ``limit`` and ``precision`` replace the file's own. ``changes`` replace single keys, such as
    ``"generation.training.epochs=3"`` (`epsbench.harness.plan.changes`); the suite's description names them, and so do
    its records. Raises one `InputError` with a message for every error: the file, the key, and what to write instead.
    """
    wanted = read_changes(changes)
    path = file_of_suite(name_or_path)
    if not path.stem.strip("."):  # results/<name> would be another folder
        raise InputError(f"{path}: a suite is named after its file, and {path.stem!r} is no name; rename the file")
    document = apply_changes(_parse(path), wanted)
    if problems := list(_unusable(document, ())):  # TOML allows more in a value than a suite does
        raise InputError([f"--set: {problem}" for problem in problems])
    if wanted and isinstance(document.get("description", ""), str):
        made = ", ".join(f"{change.key} = {change.text.partition('=')[2].strip()}" for change in wanted)
        document["description"] = f"{document.get('description', '')} (changed: {made})".strip()
    suite = made_suite(document, path, limit, precision, lambda problem: f"{path}: {problem}{_from(problem, wanted)}")
    given = [("--limit", limit), ("--precision", precision), *(("--set", change.text) for change in wanted)]
    return replace(suite, arguments=tuple(str(each) for pair in given if pair[1] is not None for each in pair))


def suite_text(name_or_path: str, changes: Iterable[str] = ()) -> str:
    """The text of a suite file; with changes written anew, without its comments. Raises as `load_suite`."""
    suite = load_suite(name_or_path, changes=(changes := list(changes)))
    if not changes:
        return suite.path.read_text(encoding="utf-8")
    return as_toml(apply_changes(_parse(suite.path), read_changes(changes)))


def _from(problem: str, changes: Iterable[Change]) -> str:
    """Which change a problem comes from: that of the key that the problem begins with, or of one inside it."""
    key = problem.partition(": ")[0]
    for change in changes:
        place = key_path(change.place)
        longer, shorter = (key, place) if len(key) > len(place) else (place, key)
        if longer == shorter or (shorter and re.match(rf"{re.escape(shorter)}[.\[]", longer)):
            return f" (from --set {change.text})"
    return ""


def made_suite(
    document: dict[str, Any],
    path: Path,
    limit: int | None = None,
    precision: str | None = None,
    shown: Callable[[str], str] | None = None,
) -> Suite:
    """The suite of a parsed document, as `load_suite`; ``path`` is the file it would be.

    ``shown`` makes the message of a problem that begins with a key; by default it names the file.
    """
    name = shown or (lambda problem: f"{path}: {problem}")
    if unusable := list(_unusable(document, ())):
        raise InputError([name(problem) for problem in unusable])
    over = {key: value for key, value in (("limit", limit), ("precision", precision)) if value is not None}
    for task in ("robustness", "generation"):
        if isinstance(document.get(task), dict):
            document[task] |= over
    try:
        parsed = SuiteFile.model_validate(document, context={"base": path.parent, "largest": _largest(document)})
    except ValidationError as error:
        raise InputError([name(explain(each, SuiteFile, "the suite")) for each in error.errors()]) from error
    cells: list[Cell] = []
    expectations: list[Expectation] = []
    problems: list[str] = []
    for part in parsed.parts:
        try:
            of_part, expected = expand(part, path.parent)
        except InputError as error:
            problems += error.messages
        else:
            cells += of_part
            expectations += expected
    if problems:
        raise InputError([name(problem) for problem in problems])
    return Suite(path.stem, path, parsed.description, tuple(cells), tuple(expectations))


def file_of_suite(name_or_path: str) -> Path:
    """The file of a suite, by path or by the name of a shipped one. Raises `InputError` where there is none."""
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path.resolve()
    except (OSError, ValueError) as error:  # too long, in a closed folder; a NUL in the name, before Python 3.12
        raise InputError(f"{name_or_path!r} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    shipped = shipped_suites()
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise InputError(f"{name_or_path}: there is no such suite file; check the path")
    raise InputError(f"{name_or_path}: no file and no shipped suite{did_you_mean(name_or_path, shipped)}")


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_SUITE + 1)
        if len(content) > LARGEST_SUITE:
            raise InputError(f"{path}: is larger than {LARGEST_SUITE >> 10} KiB; split it into several suites")
        document = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise cannot_read(path, error) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not TOML: {error}; see https://toml.io") from error
    problems = list(_unusable(document, ()))
    if problems:
        raise InputError([f"{path}: {problem}" for problem in problems])
    return document


def _unusable(value: Any, path: tuple[str | int, ...]) -> list[str]:
    """Problems of values that TOML allows and a suite does not: NaN, infinity, huge integers, dates, deep nesting."""
    if len(path) > _DEEPEST:
        return [f"{key_path(path[:3])}…: is nested too deeply; a suite is at most {_DEEPEST} levels deep"]
    if isinstance(value, dict):
        return [problem for key, item in value.items() for problem in _unusable(item, (*path, key))]
    if isinstance(value, list | tuple):
        return [problem for index, item in enumerate(value) for problem in _unusable(item, (*path, index))]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{key_path(path)}: must be a finite number, not {value}"]
    if isinstance(value, int) and value.bit_length() > 63:
        return [f"{key_path(path)}: the number does not fit in 64 bits; give a smaller one"]
    if isinstance(value, date | time):
        return [f"{key_path(path)}: a date or time has no place in a suite; give a string or a number"]
    return []


def _largest(document: dict[str, Any]) -> float:
    """The largest ε that any norm of a suite allows: 1, the whole pixel range, where there is only L∞."""
    part = document.get("robustness")
    if not isinstance(part, dict):
        return 1
    include = part.get("include")
    tables = [part.get("matrix"), *(include if isinstance(include, list) else [])]
    named = [table["norm"] for table in tables if isinstance(table, dict) and "norm" in table]
    norms = [norm for each in named for norm in (each if isinstance(each, list) else [each])]
    return 1 if all(norm == "linf" for norm in norms) else math.inf
