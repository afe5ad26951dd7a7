"""A torch that moved one of its private names costs speed, and neither a job nor a number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.records import read_records
from epsbench.harness.run.runner import run_suite
from epsbench.harness.run.speed import torch_private
from epsbench.harness.run.speed.torch_private import NAMES, Moved, private, schema

ROOT = Path(__file__).parents[3]
NO_ATTACK = {"int_mm"}  # names that only measures of generative models use: tests/run/generative/test_neighbours.py
SUITE = """
[robustness]
data = "digits"
limit = 60
training = { epochs = 1, batch_size = 30 }
[robustness.matrix]
model = { name = "smallcnn", width = 4, hidden = 8 }
attack = { name = "pgd", steps = 3 }
eps = 0.1
"""


@pytest.fixture
def measured(tmp_path):
    """Runs the suite with every speed-up asked for, and returns its only record."""
    path = tmp_path / "suite.toml"
    path.write_text(SUITE, encoding="utf-8")

    def run(name: str):
        code = run_suite(load_suite(str(path)), tmp_path / name, Options(quiet=True, device="cpu", compile="on"))
        (record,) = read_records(tmp_path / name)
        assert code == 0, record.failure
        return record

    return run


@pytest.fixture
def uncompiled(monkeypatch):
    """Compilation takes most of a minute and is not what is tested here."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def test_torch_has_every_name():
    for name in NAMES:
        private(name)


@pytest.mark.usefixtures("uncompiled")
def test_a_cell_is_measured_whichever_name_is_missing(measured, monkeypatch):
    expected = measured("whole")
    resolve = torch_private._resolve
    used = set()
    for name, place in NAMES.items():
        if name in NO_ATTACK:
            continue

        def without(wanted: str, missing: str = place) -> object:
            used.add(wanted)
            if wanted == missing:
                raise AttributeError(wanted)
            return resolve(wanted)

        monkeypatch.setattr(torch_private, "_resolve", without)
        record = measured(name)
        assert record.verdicts == expected.verdicts, name
        assert record.training["weights_sha256"] == expected.training["weights_sha256"], name
        notices = [*record.training.get("refused", []), *(f"{each.code}: {each.message}" for each in record.findings)]
        assert name == "convolution_pointwise_binary" or any(place in notice for notice in notices), (name, notices)
    unused = {"convolution_pointwise_binary", *NO_ATTACK}  # a smallcnn adds nothing up
    assert used == {place for name, place in NAMES.items() if name not in unused}


def test_a_missing_name_is_named_with_torchs_version(monkeypatch):
    monkeypatch.setitem(NAMES, "make_fx", "torch.fx.nowhere.make_fx")
    with pytest.raises(Moved, match=re.escape(f"torch {torch.__version__} has no torch.fx.nowhere.make_fx")):
        private("make_fx")


def test_private_names_stand_in_one_file():
    """No other file imports a private or experimental module of torch, or reads such an attribute of it."""
    private_names = re.compile(r"^torch\.(.*\.)?(_\w+|experimental)(\.|$)")
    for folder in ("harness", "models", "attacks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "torch_private.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module:
                    modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                if isinstance(node, ast.Attribute):
                    modules = [ast.unparse(node)]
                assert not [module for module in modules if private_names.match(module)], f"{path}: {modules}"


def test_private_attributes_are_our_own():
    """No other file reads a private attribute, of whatever object, that is not defined in these sources."""
    paths = [path for folder in ("harness", "models", "attacks") for path in (ROOT / folder).rglob("*.py")]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths if path.name != "torch_private.py"}
    own, read = {"_getframe", "_exit"}, set()  # documented names of sys and os
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute):
                name = node.id if isinstance(node, ast.Name) else node.attr
                if isinstance(node.ctx, ast.Store):
                    own.add(name)
                elif isinstance(node, ast.Attribute) and name.startswith("_") and not name.endswith("__"):
                    read.add((path.name, node.lineno, name))
    assert not {place for place in read if place[2] not in own}


def test_an_operation_without_a_schema_is_named():
    assert schema(torch.ops.aten.add_.Tensor).is_mutable
    with pytest.raises(Moved, match=r"has no object\._schema"):
        schema(object())
