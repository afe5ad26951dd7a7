"""Values and suites as TOML text. No torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from epsbench.harness.errors import InputError


def toml_value(text: str) -> Any:
    """The value that a text is in TOML: a number, true or false, a list, a table; what is none of these is a string.

    Raises `InputError` for a text in brackets that is neither a list nor a table.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if (text[:1], text[-1:]) not in (("[", "]"), ("{", "}")):
            return text
        raise InputError(f'{text} is no list or table; texts in it need quotes, as in [0.1, "8/255"]') from error


def as_toml(document: Mapping[str, Any]) -> str:
    """A suite as TOML text, without comments."""
    return "\n".join(_lines(document, ())).lstrip("\n") + "\n"


def _lines(table: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if _is_tables(value)}
    if place and (len(inner) < len(table) or not table):
        yield f"\n[{'.'.join(map(_key, place))}]"
    yield from (f"{_key(key)} = {toml_text(value)}" for key, value in table.items() if key not in inner)
    for key, value in inner.items():
        if isinstance(value, Mapping):
            yield from _lines(value, (*place, key))
            continue
        for each in value:
            yield f"\n[[{'.'.join(map(_key, (*place, key)))}]]"
            yield from (f"{_key(name)} = {toml_text(item)}" for name, item in each.items())


def _is_tables(value: Any) -> bool:
    """Whether a value gets a heading: a table, but for one that names something, or a list of tables such as these."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, Mapping) and "name" not in each for each in value)
    return isinstance(value, Mapping) and "name" not in value


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def toml_text(value: Any) -> str:
    """A value as TOML text, in one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {toml_text(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _string(value) if isinstance(value, str) else repr(value)


def _string(text: str) -> str:
    known = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    escaped = (known.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text)
    return f'"{"".join(escaped)}"'
