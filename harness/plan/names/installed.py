"""What is installed in this Python: the folders, and which package a module belongs to, in which version."""

from __future__ import annotations

import hashlib
import inspect
import site
import sys
import sysconfig
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path


def is_installed(path: Path) -> bool:
    """Whether a file belongs to the standard library or to an installed package."""
    return any(path.resolve().is_relative_to(folder) for folder in installed())


@cache
def installed() -> tuple[Path, ...]:
    """The folders of the standard library and of installed packages."""
    named = [sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    # Those of another environment, too, that a .pth file or PYTHONPATH adds to this one.
    added = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    folders = (*named, *site.getsitepackages(), site.getusersitepackages(), *added)
    return tuple(dict.fromkeys(Path(folder).resolve() for folder in folders))


@cache
def package_version(top: str) -> str:
    """The version of the installed package that a top-level name belongs to; empty where there is none."""
    return ", ".join(each.version for each in _packages(top))


@cache
def package_files(top: str) -> str:
    """A digest of the list of files, each with its own digest, that an installation of a top-level name wrote.

    Empty where there is no such list: then no version of files says what is installed.
    """
    lists = [each.read_text("RECORD") or "" for each in _packages(top)]
    return hashlib.sha256("\n".join(lists).encode()).hexdigest()[:16] if lists and all(lists) else ""


@cache
def _packages(top: str) -> tuple[Distribution, ...]:
    """The installed packages that a top-level name belongs to, sorted by name."""
    try:
        return (distribution(top),)
    except (PackageNotFoundError, ValueError):  # the package may have another name than what it installs
        named = {each.metadata["Name"]: each for each in distributions() if _installs(each, top)}
    return tuple(distribution(name) for name in sorted(named))


def _installs(package: Distribution, top: str) -> bool:
    """Whether an installed package brings a top-level name: as it declares, or by its files.

    As `importlib.metadata.packages_distributions`, which takes 0.3 s: it splits the paths of all files of all packages.
    """
    if declared := (package.read_text("top_level.txt") or "").split():
        return top in declared
    if top not in (package.read_text("RECORD") or top):  # without that file, the paths come from another one
        return False
    return any(
        (file.parts[0] if len(file.parts) > 1 else inspect.getmodulename(file.name)) == top
        for file in package.files or ()
    )
