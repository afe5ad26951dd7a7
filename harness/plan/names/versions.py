"""The version of a piece of code: it changes when the code does, and not when a comment does."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from epsbench.harness.plan.names.imports import imports_of
from epsbench.harness.plan.names.installed import is_installed, package_files, package_version
from epsbench.harness.plan.names.repository import data_of
from epsbench.harness.plan.names.stamp import FileStamp, stamp_of

# What stands between two statements and says nothing of its own.
_LAYOUT = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
_FOREIGN = sys.stdlib_module_names | {"torch"}
_RECORDED = frozenset({"torch", "numpy"})  # everything depends on them, and a record's environment names their versions
# Parts of epsbench whose classes declare versions, and whose import brings no torch.
_VERSIONED = ("epsbench.attacks", "epsbench.models.base", "epsbench.models.catalogue", "epsbench.models.defenses",
              "epsbench.models.generative")  # fmt: skip


def bare_source(source: str) -> str:
    """Source without comments, docstrings, blank lines and trailing space; the same on every Python version.

    Tokens only say where to cut: their own text differs between versions (f-strings since 3.12).
    """
    lines = source.split("\n")
    for token in reversed(list(_superfluous(source))):
        (first, start), (last, end) = token.start, token.end
        lines[first - 1 : last] = [lines[first - 1][:start] + lines[last - 1][end:]]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _superfluous(source: str) -> Iterator[tokenize.TokenInfo]:
    """Comments, and statements that are nothing but one string literal."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    before = tokenize.NEWLINE
    for token, after in pairwise(tokens):
        alone = token.type == tokenize.STRING and before == tokenize.NEWLINE and after.type == tokenize.NEWLINE
        if token.type == tokenize.COMMENT or alone:
            yield token
        if token.type not in _LAYOUT:
            before = token.type


def code_version(obj: Any, *files: Path) -> str:
    """The version of a class or function, with that of further ``files`` it was named by.

    A class that declares a version has that one: the string itself, or ``"v2"`` for ``version = 2``. Otherwise it is a
    digest of

    - the bare source of the file of every class of its MRO, down to the first that declares a version,
    - the bare source of every file of the user's that these import, at the top or inside a function,
    - the data files of her project that these read when they are imported,
    - the declared versions of what these import from epsbench, and the versions of the installed packages they import.

    The standard library, torch and NumPy do not count: a record's environment has their versions.
    """
    if (declared := _declared(obj)) is not None:
        return declared
    parts: set[str] = set()
    seen: set[Path] = set(files)
    for part in inspect.getmro(obj) if inspect.isclass(obj) else (obj,):
        if (declared := _declared(part)) is not None:
            parts.add(declared)
            break
        module = getattr(part, "__module__", None) or ""
        if module.partition(".")[0] in _FOREIGN:
            continue
        path = _source_path(module)
        if path is None:
            parts.add(_typed(part))
        elif part is not obj and is_installed(path):
            top = module.partition(".")[0]
            parts.add(f"{top} {package_version(top)}")
        else:
            seen.add(path)
    for path in list(seen):
        imports = imports_of(path)
        seen |= imports.files
        parts |= {_epsbench_version(module, name) for module, name in imports.of_epsbench}
        parts |= {f"{top} {package_version(top)}" for top in imports.installed - _RECORDED}
    seen |= {data for path in seen for data in data_of(path)}
    return _digest("\n".join(sorted(parts | {file_digest(path) for path in seen})))


def part_version(kind: type) -> str:
    """The version of a class that a model handed over is made of.

    Of an installed package it is a digest of the class's file and of the list of files that the installation wrote:
    to read all that such a file imports takes seconds for torchvision and timm. Otherwise it is `code_version`.
    """
    path, top = _source_path(kind.__module__), kind.__module__.partition(".")[0]
    installed = _declared(kind) is None and top not in _FOREIGN and path is not None and is_installed(path)
    if path is None or not installed or not (files := package_files(top)):
        return code_version(kind)
    return _digest(f"{top} {package_version(top)} {files} {file_digest(path)}")


def _typed(part: Any) -> str:
    """The source of what was typed into a session such as a notebook, which is in no file."""
    try:
        return bare_source(inspect.getsource(part))
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):  # a prompt that keeps no source
        return "no source"


def _declared(part: Any) -> str | None:
    """The version that a class or function states itself; what it inherits is not its own."""
    own = vars(part) if hasattr(part, "__dict__") else {}
    declared = own.get("record_version", own.get("version"))  # the first where `version` is a parameter
    if isinstance(declared, str):
        return declared
    return f"v{declared}" if isinstance(declared, int) else None


def _epsbench_version(module: str, name: str) -> str:
    """The version of what a user's file imports from epsbench: declared, or a digest of the module it is in."""
    if module.startswith(_VERSIONED):
        try:
            imported = getattr(importlib.import_module(module), name, None)
        except ImportError:  # her own `try` decides what follows
            return "not there"
        if inspect.isclass(imported) and hasattr(imported, "version"):
            return code_version(imported)
    path = _source_path(module)
    return file_digest(path) if path else "no source"


def file_digest(path: Path) -> str:
    """A digest of a file as it is now; of Python's, of its bare source."""
    return _file_digest(path, stamp_of(path))


@cache
def _file_digest(path: Path, stamp: FileStamp) -> str:
    """A digest of a file; of Python's, of its bare source where it can be read as such."""
    content = path.read_bytes()
    if path.suffix == ".py":
        try:
            with tokenize.open(path) as file:
                return _digest(bare_source(file.read()))
        except (SyntaxError, ValueError):  # imported by nobody, or by a `try`
            pass
    return hashlib.sha256(content).hexdigest()[:16]


def _source_path(name: str) -> Path | None:
    """The file of a module, found without importing it where its package is loaded."""
    module = sys.modules.get(name)
    if module is None:
        parent, _, leaf = name.rpartition(".")
        folder = getattr(sys.modules.get(parent), "__file__", None)
        path = Path(folder).parent / f"{leaf}.py" if folder else None
        return path if path and path.is_file() else None
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
