"""What is wrong with a table of a suite, in one line for each problem that pydantic finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from epsbench.harness.errors import did_you_mean

_PLAIN = {
    "a valid tuple": "a list", "a valid list": "a list", "a valid dictionary": "a table", "a valid string": "a string",
    "a valid boolean": "true or false", "a valid integer": "an integer", "a valid number": "a number",
}  # fmt: skip
"""What pydantic calls a thing → what TOML calls it."""


def key_path(path: tuple[str | int, ...]) -> str:
    """``robustness.matrix.attack[1]`` of ``("robustness", "matrix", "attack", 1)``."""
    text = ""
    for part in path:
        plain = isinstance(part, str) and part.replace("-", "_").isidentifier() and part.isascii()
        text += f"[{part}]" if isinstance(part, int) else f".{part if plain else repr(part)}"
    return text.removeprefix(".")


def explain(error: ErrorDetails, root: type[BaseModel], whole: str = "") -> str:
    """A pydantic error of the table ``root`` as one line: the key, what is wrong with it, and what to write instead.

    Where no key is to blame the line begins with ``whole``, or with what is wrong where that is empty.
    """
    where = key_path(error["loc"]) or whole
    problem = _problem(error, root, where)
    return f"{where}: {problem}" if where else problem


def _problem(error: ErrorDetails, root: type[BaseModel], where: str) -> str:
    path = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"unknown key{did_you_mean(str(path[-1]), _known_keys(root, path[:-1]))}"
    if error["type"] == "missing":
        return "is missing; add it"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "too_long":
        return f"has more than {error['ctx']['max_length']:,} entries; give fewer, or split the suite"
    wish = error["msg"].removeprefix("Input should be ")
    wish = next((plain for jargon, plain in _PLAIN.items() if wish.startswith(jargon)), wish)
    shown = repr(error["input"])
    remedy = _remedy(wish, where, path, error["input"])
    return f"must be {wish}, not {shown if len(shown) <= 60 else shown[:60] + '…'}{remedy}"


def _remedy(wish: str, where: str, path: tuple[str | int, ...], value: Any) -> str:
    """What to write instead, where a table and a list, or a number and a bound, were mixed up; else nothing."""
    if wish == "a list" and isinstance(value, dict):
        return f"; each entry is a table: write [[{where}]] in double brackets"
    bound = "expect" in path and not isinstance(value, bool) and isinstance(value, int | float)
    return f"; write {path[-1]} = {{ min = {value} }}, or max" if wish == "a table" and bound else ""


def _known_keys(table: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys of the table at a path inside another."""
    for part in path:
        if isinstance(part, str) and part in table.model_fields:
            table = next(tables_of(table.model_fields[part].annotation), table)
    return list(table.model_fields)


def tables_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The tables that a key holds, alone or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from tables_of(argument)
