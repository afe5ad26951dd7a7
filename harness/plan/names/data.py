"""From what a suite says of its data to a data set: a built-in, a file, a folder, or an object of the user's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.data.own import OwnData
from epsbench.harness.plan.data.own_code import OwnCode
from epsbench.harness.plan.data.source import DataSource, Facts
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.names.kinds import KINDS, address_of, entry_points_of, known_names
from epsbench.harness.plan.names.loading import load_object
from epsbench.harness.plan.names.parameters import Parameter, check_parameters, parameters_of
from epsbench.harness.plan.names.registry import in_memory, make, name_with_parameters
from epsbench.models.file_kinds import kind_of

FACTS = ("classes", "mean", "std")
"""What a suite may say of any data of the user's own."""
_SPLIT = ("split", "train")
"""Parameters of a user's function that the harness sets."""


def read_data(entry: Any, base: Path) -> str | OwnData:
    """The data of a suite's entry; paths are relative to ``base``.

    An entry is the name of a built-in, a ``.npz`` file, a folder of images, ``path/to/file.py:Object``, or a table of a
    name and parameters. Raises `InputError` for data that is not known or cannot be read.
    """
    table = {"name": entry} if isinstance(entry, str) else dict(entry) if isinstance(entry, Mapping) else {}
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise InputError(
            f'must be the name of a data set or a table such as {{ name = "npz", path = "test.npz" }}, not {entry!r}'
        )
    if name in DATASETS:
        if len(table) > 1:
            raise InputError(f"{name}: a data set that comes with epsbench takes no parameters; leave them out")
        return name
    table = _spelled_out(table, name, base)
    name = table["name"]
    if name in KINDS["data"].built_in:
        named = name_with_parameters("data", table, base)
    elif ":" in name or in_memory("data", name) is not None:
        named = _named(table, base)
    else:
        if (base / name).is_file():
            raise InputError(f"{base / name}: {_no_data(base / name)}")
        known = [*DATASETS, *known_names("data")]
        raise InputError(
            f"unknown data set {name!r}{did_you_mean(name, known)} (your own: test.npz, a folder of images, or "
            "path/to/file.py:Object)"
        )
    return OwnData(named, base, source_of(named, base).describe())


def _no_data(path: Path) -> str:
    """Why a file is no data, and what to do."""
    if path.suffix == ".py":
        return f"is code; name the object in it that is the data: {path.name}:Object"
    kind = kind_of(path)
    text = f"is {kind.text}, and that is no data" if kind.text else "is no data that epsbench reads"
    if kind.code == "parquet":
        return f'is a Parquet table; say that it is one: {{ name = "hf", path = "{path.name}" }}'
    first = {
        "lfs": "fetch it with `git lfs pull`, and ",
        "packed": "unpack it, and ",
        "zip": "unpack it, and ",
        "image": "give the folder with one folder of images for each class, or ",
    }.get(kind.code, "")
    return f"{text}; {first}give a .npz file of images and labels, a folder of images, or path/to/file.py:Object"


def source_of(named: Named, base: Path) -> DataSource:
    """The source that a name with parameters stands for."""
    if named.name in KINDS["data"].built_in:
        source: DataSource = make("data", named, base)
        return source
    factory, values = _factory(named.name, base), dict(named.params)
    own = set(_parameters(factory)) - set(FACTS)
    facts = Facts(values.get("classes") or 0, tuple(values.get("mean") or ()), tuple(values.get("std") or ()))
    return OwnCode(base, named.name, factory, tuple((key, value) for key, value in named.params if key in own), facts)


def _spelled_out(table: dict[str, Any], name: str, base: Path) -> dict[str, Any]:
    """A path alone, or a name that a package adds, as the table that it stands for."""
    if in_memory("data", name) is not None:
        return table
    if name not in KINDS["data"].built_in and name in (points := entry_points_of(KINDS["data"].group)):
        return table | {"name": address_of(points[name])}
    if Path(name).suffix in (".npz", ".npy"):
        return table | {"name": "npz", "path": name}
    if name not in KINDS["data"].built_in and ":" not in name and (base / name).is_dir():
        return table | {"name": "folder", "path": name}
    return table


def _named(table: dict[str, Any], base: Path) -> Named:
    """An object of the user's code with its parameters."""
    given = dict(table)
    name = given.pop("name")
    values, problems = check_parameters(_parameters(_factory(name, base)), given)
    if problems:
        raise InputError([f"{name}: {problem}" for problem in problems])
    return Named(name, tuple(sorted(values.items())), tuple(key for key in sorted(values) if key in given))


def _parameters(factory: Callable[..., Any]) -> dict[str, Parameter]:
    types = {"classes": "int", "mean": "tuple[float, ...]", "std": "tuple[float, ...]"}
    facts = {name: Parameter(name, types[name], None, later=True) for name in FACTS}
    try:
        own = parameters_of(factory, _SPLIT)
    except InputError:  # a class of C without a signature takes no parameters
        own = {}
    return facts | own


def _factory(name: str, base: Path) -> Callable[..., Any]:
    """What gives the data: the object itself where it can be called, else a function that returns it."""
    given = in_memory("data", name)
    thing = load_object(name, base) if given is None else given
    is_data = hasattr(thing, "__getitem__") and not isinstance(thing, type)
    return thing if callable(thing) and not is_data else lambda: thing
