"""Suites that are made on the spot, for one evaluation, instead of being read from a file. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.changes import toml_value
from epsbench.harness.plan.suite import Suite, made_suite

Entry = str | dict[str, Any]
"""A name, or a table of a name and parameters, as in a suite."""

NAME = "evaluate"
_PARAMETERS = re.compile(r":(?=\s*[A-Za-z_]\w*\s*=)")
"""The colon before parameters: values may hold colons, too, as ``loss=mine.py:Loss`` does."""
_PREFIX = re.compile(r"^robustness\.(matrix\.)?")


def evaluation_suite(
    model: Entry | Sequence[Entry],
    data: Entry,
    attack: Entry | Sequence[Entry],
    norm: str | Sequence[str],
    eps: Any,
    *,
    base: Path,
    name: str = NAME,
    limit: int | None = None,
    precision: str | None = None,
    **settings: Any,
) -> Suite:
    """The suite that attacks models as they are; names and paths are relative to ``base``.

    ``settings`` are further keys of ``[robustness]``, or axes of its matrix. Raises `InputError` with a message for
    each problem, which begins with the argument that it is about.
    """
    matrix = {"model": model, "attack": attack, "norm": norm, "eps": eps}
    matrix |= {key: settings.pop(key) for key in ("seed", "source") if key in settings}
    matrix = {key: list(value) if isinstance(value, tuple) else value for key, value in matrix.items()}
    part = {"data": data, "training": {"epochs": 0}, "matrix": matrix, **settings}
    document = {"description": "", "robustness": part}
    return made_suite(document, base / f"{name}.toml", limit, precision, lambda text: _PREFIX.sub("", text))


def parsed(text: str) -> Entry:
    """A name with parameters in one word: ``"pgd:steps=40,random_start=true"`` is ``{name = "pgd", steps = 40, …}``.

    Values are written as in a suite; what is none there is a string. Raises `InputError` for a parameter without a
    name or a value, for one that comes twice, and for brackets that hold no value of a suite.
    """
    start = _PARAMETERS.search(text)
    if start is None:
        return text
    table: dict[str, Any] = {"name": text[: start.start()]}
    for part in _split(text[start.start() + 1 :]):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not key or not equals or not value:
            raise InputError(f"{text!r}: {part!r} is no parameter; write name:key=value,key=value")
        if key in table:
            why = "is what stands before the colon" if key == "name" else "is given twice"
            raise InputError(f"{text!r}: {key} {why}; give every parameter once")
        try:
            table[key] = toml_value(value)
        except InputError as error:
            raise InputError([f"{text!r}: {key}: {message}" for message in error.messages]) from error
    return table


def _split(text: str) -> list[str]:
    """At commas, but for those within brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        depth += (character in "[{") - (character in "]}") if not quote else 0
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts
