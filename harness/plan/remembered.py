"""A suite with models of a user's own, as it was read last: to show a plan, nobody has to load torch again.

Reading such a suite imports the user's files and builds her models, which takes seconds of importing torch. The plan
verb shows cells only, so it takes them from the cache while nothing has changed: the suite, every file that her code
consists of or has read, the folders these are in, the versions of Python and the libraries, and epsbench's own source.
A run never uses this: what it measures is always read anew.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from epsbench.harness.files import JUST_WRITTEN_NS, FileStamp, cache_folder, stamp_of, write_atomically
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.names.augmentations import AUGMENTATIONS
from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.plan.names.reads import noted
from epsbench.harness.plan.names.repository import REPOSITORIES
from epsbench.harness.plan.names.roots import OWN_ROOT
from epsbench.harness.plan.suite import Suite, file_of_suite, load_suite

_VERSION = 1
_PACKAGES = ("torch", "torchvision", "timm", "numpy")
_SAFE = {("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("fractions", "Fraction"), ("builtins", "frozenset")}
# What libraries read while they are imported: the machine's description, and files that their versions stand for.
_OF_LIBRARIES = ("/proc/", "/sys/", "/dev/", *(f"{place}/" for place in {sys.prefix, sys.base_prefix}))
Stamps = dict[str, FileStamp]


def load_to_show(name: str, limit: int | None, precision: str | None, changes: Sequence[str]) -> tuple[Suite, bool]:
    """The suite as `load_suite` reads it, and whether it comes from the cache. Raises as `load_suite`."""
    path = _path(name, limit, precision, changes)
    if path is not None and (known := _remembered(path)) is not None:
        return known, True
    began = time.time_ns()
    with noted() as reads:
        suite = load_suite(name, limit, precision, changes)
    if path is not None and _can_be_kept(suite):
        own = {each for repository in REPOSITORIES.values() for each in repository.files()}
        files = {suite.path, *own, *(data for _, data in reads if not str(data).startswith(_OF_LIBRARIES))}
        stamps = stamps_of({*files, *(each.parent for each in own)})
        if stamps is not None and all(began - written > JUST_WRITTEN_NS for written, *_ in stamps.values()):
            _keep(path, stamps, suite)
    return suite, False


def stamps_of(paths: Iterable[Path]) -> Stamps | None:
    """The stamp of each file or folder; None where one is not there."""
    try:
        return {str(path): stamp_of(path) for path in paths}
    except OSError:
        return None


def _can_be_kept(suite: Suite) -> bool:
    """Whether all that the suite names is built in, or in files that are known: some of them, at least, the user's."""
    built_in = {name for kind in KINDS.values() for name in kind.built_in} | set(AUGMENTATIONS)
    own = {name for cell in suite.cells for name in _names(cell)} - built_in
    data = all(isinstance(cell.data, str) for cell in suite.cells)
    own |= {cell.norm for cell in suite.cells if isinstance(cell, RobustnessCell) and ":" in cell.norm}
    return bool(own) and data and all(name.rpartition(":")[0].endswith(".py") for name in own)


def _names(cell: Cell) -> Iterable[str]:
    """Every name in a cell, of losses and of parts of an attack too: what has a colon may be code of the user's."""
    for each in cell.models if isinstance(cell, RobustnessCell) else (cell,):
        yield each.model.name
        if isinstance(each, RobustnessCell):
            yield from (each.augmentation, each.defense.name, each.attack.name)
            yield from (text for _, value in each.attack.params for text in _texts(value) if ":" in text)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    for inner in value if isinstance(value, tuple) else ():
        yield from _texts(inner)


def _path(name: str, limit: int | None, precision: str | None, changes: Sequence[str]) -> Path | None:
    """The file of the cache for these arguments and these versions; None where there is no cache."""
    folder = cache_folder("suites")
    if folder is None:
        return None
    sources = [path for part in ("harness/plan", "attacks", "models") for path in (OWN_ROOT / part).rglob("*.py")]
    libraries = [_version(package) for package in _PACKAGES]
    what = [
        _VERSION,
        sys.version,
        libraries,
        str(file_of_suite(name)),
        str(Path.cwd()),
        limit,
        precision,
        list(changes),
    ]
    source = sorted((stamps_of(sources) or {}).items())
    return folder / f"{hashlib.sha256(repr((what, source)).encode()).hexdigest()[:32]}.pickle"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class _Reader(pickle.Unpickler):
    """Makes the values of a plan and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("epsbench.harness.plan.") or (module, name) in _SAFE:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a suite")


def _remembered(path: Path) -> Suite | None:
    try:
        stamps, suite = _Reader(io.BytesIO(path.read_bytes())).load()
        known = isinstance(suite, Suite) and stamps_of(map(Path, stamps)) == stamps
    # Not there, damaged, or of another version: read anew. A pickle may raise anything.
    except Exception:  # noqa: BLE001
        return None
    return suite if known else None


def _keep(path: Path, stamps: Stamps, suite: Suite) -> None:
    try:
        write_atomically(path, pickle.dumps((stamps, suite), protocol=pickle.HIGHEST_PROTOCOL))
    except (OSError, pickle.PicklingError, AttributeError, TypeError):  # a cache that is full, or a value of the user's
        return
