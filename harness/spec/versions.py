"""The version of a piece of code: it changes when the code does, and not when a comment does."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

# What stands between two statements and says nothing of its own.
_LAYOUT = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
_FOREIGN = sys.stdlib_module_names | {"torch"}


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


def code_version(obj: Any, *modules: str) -> str:
    """The version of a class or function, with that of further ``modules`` it stands on.

    ``"v2"`` where the class declares ``version = 2``; otherwise a digest of the bare source of every module
    that defines a class of its MRO, down to the first that declares a version (the standard library and torch
    apart), and of the modules of its own package that it imports inside its methods, with what those import.
    """
    parts: set[str] = set()
    for part in inspect.getmro(obj) if inspect.isclass(obj) else (obj,):
        if (declared := vars(part).get("version")) is not None:
            if not parts:
                return f"v{declared}"
            parts.add(f"v{declared}")
            break
        package = part.__module__.partition(".")[0]
        if package not in _FOREIGN:
            modules_of_part = {part.__module__, *_imported_inside(part, package), *_attacks_used(part)}
            parts |= {_module_digest(name) for name in modules_of_part}
    # Sorted by digest, not by name: a file's module is named after its content, comments and all.
    return _digest("\n".join(sorted(parts | {_module_digest(name) for name in modules})))


@cache
def _imported_inside(part: Any, package: str) -> frozenset[str]:
    """The modules of ``package`` that a class or function imports within its body, and those they import."""
    try:
        found = _imports(textwrap.dedent(inspect.getsource(part)), package)
    except (OSError, SyntaxError):  # a class made at run time has no source of its own
        return frozenset()
    return _closed(found, package)


@cache
def _attacks_used(part: Any) -> frozenset[str]:
    """The attacks that a class or function names, as a defense does that trains on them, and what they import."""
    path = _source_path(part.__module__)
    if path is None or path.suffix != ".py":
        return frozenset()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
        module = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return frozenset()
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom) and node.module]
    used = {str(node.module) for node in imports for alias in node.names if (alias.asname or alias.name) in named}
    return _closed({name for name in used if name.startswith("attacks.")}, "attacks")


def _closed(found: set[str], package: str) -> frozenset[str]:
    """These modules of a package and all that they import from it."""
    found, pending = set(found), set(found)
    while pending:
        path = _source_path(pending.pop())
        fresh = _imports(path.read_text(encoding="utf-8"), package) - found if path and path.suffix == ".py" else set()
        found |= fresh
        pending |= fresh
    return frozenset(found)


def _imports(source: str, package: str) -> set[str]:
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module)
    return {str(node.module) for node in nodes if str(node.module).startswith(f"{package}.")}


def _module_digest(name: str) -> str:
    """A digest of a module's bare source, found without importing it."""
    path = _source_path(name)
    if path is None:
        return "no source"
    return _file_digest(path, path.stat().st_mtime_ns)


@cache
def _file_digest(path: Path, modified: int) -> str:
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with tokenize.open(path) as file:
        return _digest(bare_source(file.read()))


def _source_path(name: str) -> Path | None:
    module: ModuleType | None = sys.modules.get(name)
    if module is None:
        # Beside its package, which is loaded: finding it must not load torch.
        parent, _, leaf = name.rpartition(".")
        package = sys.modules.get(parent)
        file = getattr(package, "__file__", None)
        path = Path(file).parent / f"{leaf}.py" if file else None
        return path if path and path.is_file() else None
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
