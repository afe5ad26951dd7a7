"""The wings of the house: who may import whom, and who must do without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROBUST = ("attacks", "models")
SHARED = ("harness.errors", "harness.statistics", "harness.records", "harness.options")

# A module → the packages of this repository it may import from. The longest prefix of its name decides.
MAY_IMPORT = {
    "attacks": ("attacks",),
    "models": ROBUST,
    "suites": (),
    "harness": (),
    "harness.records": ("harness.errors",),
    "harness.spec": ("harness.spec", "harness.errors", "harness.records", "attacks", "models", "suites"),
    "harness.run": ("harness.run", "harness.spec", *SHARED, *ROBUST, "harness"),
    "harness.report": ("harness.report", "harness.spec", *SHARED, "harness"),
    "harness.reference": ("harness.spec", "harness.errors"),
    "harness.listing": ("harness.spec", "harness.errors"),
    "harness.cli": ("harness.run", "harness.report", "harness.spec", "harness.listing", *SHARED),
}
TORCH_FREE = (
    "attacks.base", "attacks.norms", "attacks.noise", "attacks.fgsm", "attacks.pgd", "attacks.mifgsm",
    "models.base", "models.catalogue", "models.generative", "models.defenses", "harness.records", "harness.options",
    "harness.statistics", "harness.listing", "harness.cli", "harness.reference",
)  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for package in ("attacks", "models", "suites", "harness"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> set[str]:
    """Every module a file names in an import, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def allowed(module: str, name: str) -> bool:
    own = max((prefix for prefix in MAY_IMPORT if within(module, prefix)), key=len)
    # "harness" alone stands for its version, not for everything below it.
    return any(name == "harness.__version__" if ok == "harness" else within(name, ok) for ok in MAY_IMPORT[own])


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_one_way(module):
    ours = {
        name for name in imported(modules()[module]) if name.split(".")[0] in {"attacks", "models", "harness", "suites"}
    }
    assert not {name for name in ours if not allowed(module, name)}


@pytest.mark.parametrize("module", sorted(name for name in modules() if within(name, "attacks")))
def test_an_attack_knows_only_torch(module):
    foreign = {name.split(".")[0] for name in imported(modules()[module])} - sys.stdlib_module_names
    assert foreign <= {"attacks", "torch"}


def assert_without(heavy: str, names: list[str]) -> None:
    """Importing these modules in a new process does not import the heavy one."""
    script = "\n".join(
        ["import importlib, sys", f"for name in {names!r}:", "    importlib.import_module(name)",
         f"    assert {heavy!r} not in sys.modules, name"]
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_what_only_reads_does_not_import_torch():
    names = [
        *TORCH_FREE,
        *(name for name in modules() if within(name, "harness.spec") or within(name, "harness.report")),
    ]
    assert_without("torch", names)


def test_torchs_compiler_is_imported_by_those_alone_who_trace():
    # It takes a second, and most runs trace and compile nothing.
    tracing = "harness.run.program."
    names = [name for name in modules() if within(name, "harness.run") and not name.startswith(tracing)]
    assert_without("torch._dynamo", names)
