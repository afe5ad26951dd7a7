"""The names of the private packages that hold the code of users. A name says where the files are."""

from __future__ import annotations

import re
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

PARENT = "epsbench.user_code"
"""The package that holds all private packages."""


def encoded(*folders: str) -> str:
    """Folders as one part of a module's name."""
    return "\0".join(folders).encode("utf-8", "surrogateescape").hex()


def decoded(text: str) -> list[str]:
    """The folders that `encoded` has written. Raises `ValueError` for any other text."""
    return bytes.fromhex(text).decode("utf-8", "surrogateescape").split("\0")


def without_package(text: str) -> str:
    """The text with the names of modules as the user's code has them: ``victim.Net``."""
    return re.sub(rf"{re.escape(PARENT)}\.\w+\.", "", text)


def package_of(name: str) -> str:
    """The private package that a module is in; empty where it is not a user's."""
    return ".".join(name.split(".")[:3]) if name.startswith(f"{PARENT}.") else ""


class Borrowed(Loader):
    """Gives a module that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put that of the borrowed name there
