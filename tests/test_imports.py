"""The rooms of the house: who may import whom, and who must do without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROBUST = ("attacks", "models")
SHARED = ("harness.digest", "harness.errors", "harness.files", "harness.migrations", "harness.isolation",
          "harness.statistics", "harness.records", "harness.frames", "harness.options", "harness.findings",
          "harness.finding_codes", "harness.hardware", "harness.durations", "harness.waiting",
          "harness.latex")  # fmt: skip
RUN = "harness.run"
# What a room of `harness.run` stands on: the rooms below it.
MACHINE = (f"{RUN}.machine", f"{RUN}.noise", f"{RUN}.metrics", f"{RUN}.progress", f"{RUN}.guard")
ATTACK = (f"{RUN}.attack", *MACHINE)
SPEED = (f"{RUN}.speed", *ATTACK)
DATA = (f"{RUN}.data", *MACHINE)
TRAINING = (f"{RUN}.training", f"{RUN}.context", *SPEED, *DATA)
AUDITS = (f"{RUN}.audits", *TRAINING)
PLAN = ("harness.plan", *SHARED, *ROBUST)
REPORT = "harness.report"
# The rooms of `harness.report`: results lie below drawing, drawing below what is shown of both kinds of models.
DRAWING = (f"{REPORT}.drawing", f"{REPORT}.results")
CONTENT = (
    f"{REPORT}.overview", f"{REPORT}.reading", f"{REPORT}.robustness", f"{REPORT}.generative", *DRAWING,
)  # fmt: skip

# A module or room → what of this repository it may import from. The longest prefix of its name decides.
MAY_IMPORT = {
    "": ("harness",),  # the public names, imported when they are used
    "__main__": ("harness.cli",),
    "attacks": ("attacks",),
    "models": ROBUST,
    "suites": (),
    "user_code": ("harness.plan.names.finders",),
    "harness": (),
    "harness.latex": (),
    "harness.migrations": ("harness.errors",),
    "harness.files": ("harness.errors",),
    "harness.frames": ("harness.records",),
    "harness.isolation": ("harness.global_settings",),
    "harness.findings": ("harness.finding_codes",),
    "harness.finding_codes": ("harness.finding_codes",),
    "harness.digest": (),
    "harness.records": (
        "harness.records", "harness.digest", "harness.errors", "harness.files", "harness.findings",
        "harness.migrations", "harness.statistics",
    ),
    "harness.plan": (
        "harness.plan", "harness.digest", "harness.errors", "harness.isolation", "harness.records",
        "harness.hardware", "harness.files", "harness.durations", *ROBUST, "suites",
    ),
    "harness.plan.data": (
        "harness.plan.data", "harness.plan.named", "harness.errors", "harness.files", "models.file_kinds",
    ),
    "harness.plan.names": (
        "harness.plan.names", "harness.plan.cell", "harness.plan.named", "harness.plan.data", "harness.plan.epsilon",
        "harness.plan.one_word", "harness.plan.toml", "harness.digest", "harness.errors", "harness.files",
        "harness.isolation", *ROBUST,
    ),
    "harness.plan.one_word": ("harness.plan.toml", "harness.errors"),
    "harness.plan.toml": ("harness.errors",),
    "harness.plan.axes": (
        "harness.plan.axes", "harness.plan.names", "harness.plan.named", "harness.plan.data", "harness.plan.epsilon",
        "harness.errors",
    ),
    RUN: (RUN, *PLAN, "__version__"),
    f"{RUN}.machine": (*MACHINE, *SHARED, "__version__"),
    f"{RUN}.noise": (),
    f"{RUN}.metrics": SHARED,
    f"{RUN}.progress": ("harness.durations",),
    f"{RUN}.guard": SHARED,
    f"{RUN}.crew": (),
    f"{RUN}.context": (f"{RUN}.crew", *DATA, *PLAN),
    f"{RUN}.data": (*DATA, *PLAN),
    f"{RUN}.attack": (*ATTACK, *PLAN),
    f"{RUN}.speed": (*SPEED, *PLAN),
    f"{RUN}.training": (*TRAINING, *PLAN),
    f"{RUN}.audits": (*AUDITS, *PLAN),
    f"{RUN}.generative": (f"{RUN}.generative", *TRAINING, *PLAN),
    f"{RUN}.robustness": (
        f"{RUN}.robustness", f"{RUN}.crew", f"{RUN}.failure", "harness.kept_images", *AUDITS, *PLAN,
    ),
    REPORT: (*CONTENT, f"{REPORT}.content", f"{REPORT}.formats", f"{REPORT}.glossary", f"{REPORT}.page",
             f"{REPORT}.exports", f"{REPORT}.site", *SHARED),
    f"{REPORT}.results": (
        f"{REPORT}.results", "harness.plan.names.registry", "harness.plan.cell", "harness.plan.start_differences",
        "harness.plan.data", *SHARED,
    ),
    f"{REPORT}.drawing": (*DRAWING, *SHARED),
    f"{REPORT}.robustness": (
        f"{REPORT}.robustness", "harness.plan.training_text", "harness.plan.data", "harness.plan.epsilon",
        "models.preprocessing", *DRAWING, *SHARED,
    ),
    f"{REPORT}.generative": (f"{REPORT}.generative", "harness.plan.training_text", *DRAWING, *SHARED),
    f"{REPORT}.formats": (f"{REPORT}.formats", *DRAWING, *SHARED),
    f"{REPORT}.formats.latex": (f"{REPORT}.formats.latex", f"{REPORT}.robustness", *DRAWING, *SHARED),
    f"{REPORT}.exports": (
        f"{REPORT}.exports", *CONTENT, f"{REPORT}.content", f"{REPORT}.formats.export", "harness.plan", "__version__",
        *SHARED,
    ),
    f"{REPORT}.site": (
        f"{REPORT}.site", *CONTENT, f"{REPORT}.content", f"{REPORT}.formats.html", f"{REPORT}.glossary",
        f"{REPORT}.page", *SHARED,
    ),
    f"{REPORT}.gates": (f"{REPORT}.gates", f"{REPORT}.formats.markdown", f"{REPORT}.results", "harness.plan", *SHARED),
    f"{REPORT}.overview": (f"{REPORT}.robustness", "harness.plan.training_text", *DRAWING, *SHARED),
    f"{REPORT}.reading": CONTENT,
    f"{REPORT}.content": CONTENT,
    f"{REPORT}.page": (*CONTENT, f"{REPORT}.content", f"{REPORT}.glossary", f"{REPORT}.known"),
    f"{REPORT}.known": (f"{REPORT}.results", *SHARED),
    f"{REPORT}.glossary": (),
    "testing": ("harness.testing",),
    "harness.evaluation": (
        "harness.plan.epsilon", "harness.plan.data.budget", "harness.kept_images", "harness.saved_images",
        "harness.by_class", "harness.share",
        *SHARED,
    ),
    "harness.share": ("harness.statistics",),
    "harness.by_class": ("harness.statistics",),
    "harness.kept_images": ("harness.errors", "harness.files"),
    "harness.saved_images": ("harness.errors", "harness.files", "harness.evaluation"),
    "harness.api": ("harness.evaluation", RUN, "harness.plan", "harness.report", *SHARED),
    "harness.evaluate_verb": ("harness.evaluation", "harness.saved_images", "harness.plan", *SHARED),
    "harness.choices": (
        "__version__", "harness.completion", "harness.durations", "harness.options", "harness.plan.data.budget",
    ),
    "harness.completion": ("harness.plan", "suites"),
    "harness.several": ("harness.plan", *SHARED),
    "harness.old_options": (),
    "harness.durations": (),
    "harness.options": ("harness.errors",),
    "harness.testing": ("harness.api", RUN, "harness.plan", *SHARED, *ROBUST),
    "harness.quoted": ("harness.frames", "harness.records", "harness.errors", "harness.durations"),
    "harness.reference": ("harness.plan", "harness.errors", "harness.options"),
    "harness.listing": (
        "harness.plan", "harness.errors", "harness.durations", "models.preprocessing", "models.hub",
    ),
    "harness.measuring": (
        RUN, "harness.report", "harness.plan", "harness.choices", "harness.listing", "harness.evaluate_verb",
        "harness.several", *SHARED,
    ),
    "harness.report_verbs": ("harness.report", "harness.plan", "harness.choices", *SHARED),
    "harness.gate_verbs": (
        "harness.report.gates", "harness.several", "harness.choices", "harness.report_verbs", *SHARED,
    ),
    "harness.run_verbs": (
        f"{RUN}.audits", f"{RUN}.verify", "harness.choices", "harness.completion", "harness.evaluate_verb",
        "harness.measuring", "harness.several", "harness.report_verbs", *SHARED,
    ),
    "harness.list_verbs": (
        "harness.plan", "harness.choices", "harness.listing", "harness.several", "harness.report_verbs", *SHARED,
    ),
    "harness.cli": (
        f"{RUN}.machine", "harness.choices", "harness.old_options", "harness.run_verbs", "harness.list_verbs",
        "harness.report_verbs", "harness.gate_verbs", *SHARED,
    ),
}  # fmt: skip
TORCH_FREE = (
    "", "attacks.base", "attacks.norms", "attacks.noise", "attacks.fgsm", "attacks.pgd", "attacks.mifgsm",
    "models.base", "models.catalogue", "models.generative", "models.defenses", "harness.records", "harness.options",
    "harness.choices", "harness.files", "harness.statistics", "harness.listing", "harness.cli", "harness.reference",
    "harness.findings", "harness.finding_codes", "harness.api", "harness.evaluation", "harness.evaluate_verb",
    "harness.saved_images",
    "harness.by_class", "harness.measuring", "harness.several", "harness.completion", "harness.hardware",
    "harness.waiting", "harness.report_verbs", "harness.gate_verbs", "harness.run_verbs", "harness.list_verbs",
    "models.preprocessing", "models.file_kinds",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the package by its name below ``epsbench``; the package itself is ``""``."""
    paths = [path for folder in ("attacks", "models", "suites", "harness") for path in (ROOT / folder).rglob("*.py")]
    by_name = {}
    for path in sorted([*ROOT.glob("*.py"), *paths]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        by_name[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return by_name


def imported(path: Path) -> set[str]:
    """Every module a file names in an import, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return not package or name == package or name.startswith(f"{package}.")


def allowed(module: str, name: str) -> bool:
    own = max((prefix for prefix in MAY_IMPORT if within(module, prefix)), key=len)
    return any(within(name, ok) for ok in MAY_IMPORT[own])


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_one_way(module):
    ours = {name.removeprefix("epsbench.") for name in imported(modules()[module]) if within(name, "epsbench")}
    assert not {name for name in ours if not allowed(module, name)}


@pytest.mark.parametrize("module", sorted(modules()))
def test_nothing_is_imported_by_its_name_of_before(module):
    assert not {name for name in imported(modules()[module])
                if name.split(".")[0] in {"attacks", "models", "harness", "suites"}}  # fmt: skip


@pytest.mark.parametrize("module", sorted(name for name in modules() if within(name, "attacks")))
def test_an_attack_knows_only_torch(module):
    foreign = {name.split(".")[0] for name in imported(modules()[module])} - sys.stdlib_module_names
    # An adapter knows its own library.
    library = {module.rpartition(".")[2]} if within(module, "attacks.adapters") else set()
    assert foreign <= {"epsbench", "torch", *library}


def assert_without(heavy: str, names: list[str]) -> None:
    """Importing these modules in a new process does not import the heavy one."""
    script = "\n".join(
        ["import importlib, sys", f"for name in {names!r}:",
         "    importlib.import_module(f'epsbench.{name}'.rstrip('.'))",
         f"    assert {heavy!r} not in sys.modules, name"]
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_only_reads_does_not_import_torch():
    names = [
        *TORCH_FREE,
        *(name for name in modules() if within(name, "harness.plan") or within(name, "harness.report")),
    ]
    assert_without("torch", names)


def test_torchs_compiler_is_imported_by_those_alone_who_trace():
    # It takes a second, and most runs trace and compile nothing.
    tracing = f"{RUN}.speed.program."
    names = [name for name in modules() if within(name, RUN) and not name.startswith(tracing)]
    assert_without("torch._dynamo", names)
