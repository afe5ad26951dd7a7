"""The versions that built-ins declare: those of the committed records, and a new one where their code changes."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from pathlib import Path

import pytest

from epsbench.harness.plan.names.kinds import KINDS
from epsbench.harness.plan.names.loading import load_object
from epsbench.harness.plan.names.norms import norm_versions
from epsbench.harness.plan.names.versions import bare_source, code_version
from epsbench.harness.plan.plan import plan
from epsbench.harness.plan.suite import load_suite

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "results" / "reference"
SOURCES = Path(__file__).with_name("pinned_sources.json")
ADDRESSES = {
    f"{kind} {name}": address
    for kind, table in KINDS.items()
    for name, address in {**table.built_in, **{p: a for p, (a, _) in table.prefixes.items()}}.items()
}


def behind(path: Path) -> set[Path]:
    """A file of attacks or models, and those of them that it imports, at the top or inside a function."""
    files, pending = {path}, [path]
    while pending:
        for node in ast.walk(ast.parse(pending.pop().read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(
                ("epsbench.attacks", "epsbench.models")
            ):
                base = ROOT.joinpath(*str(node.module).split(".")[1:])
                imported = {path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()}
                pending += imported - files
                files |= imported
    return files


def source_digest(address: str) -> str:
    """A digest of the code behind a built-in: of what its class uses of the files it stands in and imports."""
    files = behind(Path(inspect.getsourcefile(load_object(address, Path()))))
    bare = sorted(bare_source(file.read_text(encoding="utf-8")) for file in files)
    return hashlib.sha256("\n".join(bare).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(ADDRESSES))
def test_code_does_not_change_unnoticed(name):
    known = json.loads(SOURCES.read_text(encoding="utf-8"))[name]
    actual = [code_version(load_object(ADDRESSES[name], Path())), source_digest(ADDRESSES[name])]
    if name.startswith("data "):  # that version is no part of an id, and contains those of the installed libraries
        actual[0] = known[0]
    assert actual == known, (
        f"the code behind {name} has changed. If it now measures something else, declare another `version` and name "
        f"the stale records; either way then run: {Path(sys.executable).name} {Path(__file__).relative_to(ROOT)}"
    )


def test_the_first_norms_add_nothing_to_an_id():
    assert [norm_versions(name, Path()) for name in ("linf", "l2")] == [{}, {}]


@pytest.mark.parametrize("folder", sorted(path.name for path in REFERENCE.iterdir() if path.is_dir()))
def test_committed_records_are_records_of_todays_cells(folder, skip_without_libraries):
    skip_without_libraries(folder)
    recorded = {path.stem for path in (REFERENCE / folder / "cells").glob("*.json")}
    made = plan(load_suite(folder), REFERENCE / folder)
    assert recorded == made.done | made.void | made.failed


if __name__ == "__main__":
    table = {
        name: [code_version(load_object(address, Path())), source_digest(address)]
        for name, address in sorted(ADDRESSES.items())
    }
    SOURCES.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
