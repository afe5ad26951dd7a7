"""Lists of ids: which examples of a data set are measured on, one a line."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

import numpy as np

from epsbench.harness.errors import InputError


def lines_of(path: Path, names: Container[str] = ()) -> list[str]:
    """The id on every line of a list: the whole line where that is one of ``names``, else its first word.

    Empty lines and comments (``#``) are left out.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the list of ids cannot be read ({error}); give a text file, one id a line"
        ) from error
    ids = [_id(line.strip(), names) for line in lines]
    if not any(ids):
        raise InputError(f"{path}: the list of ids is empty; give one id a line")
    return list(filter(None, ids))


def _id(line: str, names: Container[str]) -> str:
    """The id on one line; empty where there is none. A name may have spaces, and begin with ``#``."""
    if not line or line in names:
        return line
    return "" if line.startswith("#") else line.split()[0]


def chosen_numbers(path: Path, n: int) -> np.ndarray:
    """The positions (k,) that a list names, in its order. Raises `InputError` for what is no position of ``n``."""
    numbers: list[int] = []
    for line in lines_of(path):
        if not line.isascii() or not line.isdigit() or int(line) >= n:
            raise InputError(f"{path}: {line!r} is no position in the data; give whole numbers from 0 to {n - 1}")
        numbers.append(int(line))
    _different(path, numbers)
    return np.asarray(numbers)


def chosen_names(path: Path, names: list[str]) -> list[int]:
    """The positions of the files that a list names, in its order: by path, by name, or by name without its ending."""
    by_name: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        pure = Path(name)
        for key in {name, pure.name, pure.stem}:
            by_name.setdefault(key, []).append(position)
    chosen: list[int] = []
    for line in lines_of(path, by_name):
        matches = by_name.get(line, [])
        if len(matches) != 1:
            what = "names no image" if not matches else f"names {len(matches)} images; give their paths"
            raise InputError(f"{path}: {line!r} {what}")
        chosen += matches
    _different(path, chosen)
    return chosen


def _different(path: Path, chosen: Iterable[int]) -> None:
    positions = list(chosen)
    if len(set(positions)) < len(positions):
        raise InputError(f"{path}: names an example twice; name each once")
