"""The files that a suite names: where they are looked for, and one spelling for each, which ids depend on."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.models.file_kinds import kind_of

FILE = "file:"
"""Begins the name of a model that is read from a file of weights."""


def in_one_spelling(name: str, base: Path) -> str:
    """The name with its file's path relative to the suite's folder ``base``; a name without a file as it is.

    A file is looked for beside the suite, and where it is not there, in the working folder.
    """
    before, place, after = _parts(name)
    return f"{before}{_spelled(place, base)}{after}" if place else name


def known_name(name: Any, noun: str, known: Collection[str], own: str = "") -> str:
    """The name, if it is one of ``known``. Raises `InputError` for anything else.

    ``noun`` says in messages what is named, such as ``"norm"``. ``own`` is the form of the address of something of the
    user's own, such as ``"path/to/file.py:Class"``; empty where there is no such thing.
    """
    if not isinstance(name, str):
        raise InputError(f"must be a name, not {name!r}; known: {', '.join(known)}")
    if name not in known:
        raise InputError(f"unknown {noun} {name!r}{did_you_mean(name, known)}{f' (your own: {own})' if own else ''}")
    return name


def known_or_own(name: Any, base: Path, noun: str, known: Collection[str], own: str) -> str:
    """As `known_name`; the address of something of the user's own comes back as `in_one_spelling` has it."""
    is_own = isinstance(name, str) and name not in known and ":" in name
    return in_one_spelling(name, base) if is_own else known_name(name, noun, known, own)


def file_of(name: str, base: Path) -> Path | None:
    """The Python file that ``path/to/file.py:Object`` names; None for other names."""
    _, place, after = _parts(name)
    return (base / place).resolve() if place and after else None


def folders_of(cells: Iterable[Cell], base: Path) -> tuple[Path, ...]:
    """The folders of the users' code and weights that cells name, models first; last the suite's folder ``base``."""
    models = [each for cell in cells for each in (cell.models if isinstance(cell, RobustnessCell) else (cell,))]
    names = dict.fromkeys(each.model.name for each in models)
    for each in models:
        if isinstance(each, RobustnessCell):
            names |= dict.fromkeys((each.defense.name, each.attack.name))
    places = (place for _, place, _ in map(_parts, names) if place)
    return tuple(dict.fromkeys([*((base / place).resolve().parent for place in places), base]))


def require_weights(name: str, base: Path) -> None:
    """Raise `InputError` where the name is one of weights in a file, and the file cannot be read."""
    before, place, _ = _parts(name)
    if before and place:
        try:
            with (base / place).open("rb"):
                pass
        except (OSError, ValueError) as error:
            raise InputError(f"{name}: {unreadable(place, base, error)}") from error


def unreadable(place: str, base: Path, error: Exception) -> str:
    """What to say of a file that cannot be read: why, and where it was looked for."""
    beside, here = Path(os.path.normpath(base / place)), Path(os.path.normpath(Path(place).absolute()))
    reason = getattr(error, "strerror", None) or error
    if beside.is_dir():
        return f"{beside} is {kind_of(beside).text}; give the path of a file"
    if beside.with_name(f"{beside.name}.index").is_file():
        return f"{beside} is a checkpoint of TensorFlow; save the weights as a state dict of torch, with torch.save"
    if here == beside:
        return f"{beside} cannot be read ({reason}); check the path"
    also = "" if here.exists() else f", and there is no {here} either"
    return f"{beside} cannot be read ({reason}){also}; give a path relative to the suite's folder"


def _parts(name: str) -> tuple[str, str, str]:
    """A name as what comes before a file's path, the path, and what comes after it; no path where there is none."""
    if name.startswith(FILE):
        return FILE, name.removeprefix(FILE), ""
    place, colon, attribute = name.rpartition(":")
    return ("", place, colon + attribute) if place.endswith(".py") else (name, "", "")


def _spelled(place: str, base: Path) -> str:
    """The shortest path relative to ``base``. A link stays a link, and what is not there stays as it is."""
    try:
        path = base / place
        if not path.exists() and not Path(place).is_absolute() and Path(place).exists():
            path = Path(place).absolute()
        short = os.path.relpath(path, base)
        if short.startswith("..") and path.parent.resolve().is_relative_to(base.resolve()):  # through a link
            short = os.path.relpath(path.parent.resolve() / path.name, base.resolve())
        return Path(short).as_posix() if (base / short).samefile(path) else place
    except (OSError, ValueError):  # nothing is there; who opens it says why
        return place
