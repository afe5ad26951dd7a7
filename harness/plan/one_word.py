"""A name with its parameters in one word, as on the command line: ``pgd:steps=40``. No torch."""

from __future__ import annotations

import re
from typing import Any

from epsbench.harness.errors import InputError
from epsbench.harness.plan.toml import toml_value

Entry = str | dict[str, Any]
"""A name, or a table of a name and parameters, as in a suite."""

_PARAMETERS = re.compile(r":(?=\s*[A-Za-z_]\w*\s*=)")
"""The colon before parameters: values may hold colons, too, as ``loss=mine.py:Loss`` does."""


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
