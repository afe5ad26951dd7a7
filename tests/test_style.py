"""Names say what a thing is: a few that do not are used nowhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("attacks", "harness", "models", "suites", "tests")
UNCLEAR = {"told", "said", "says", "found", "held", "begun", "lent", "bar", "jury", "word"}


def defined(tree: ast.AST) -> set[str]:
    """The names of variables, arguments, functions and classes that a file defines."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_unclear_name_is_used(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    unclear = {path: defined(ast.parse(path.read_text(encoding="utf-8"))) & UNCLEAR for path in paths}
    assert not {str(path): names for path, names in unclear.items() if names}
