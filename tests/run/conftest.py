"""Makes `small` importable, the tests being no package, and runs its suite once for each file of tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest

from epsbench.harness.plan.suite import Suite
from epsbench.harness.records import Record


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path, dict[str, Record]]:
    from small import run, suite_of

    folder = tmp_path_factory.mktemp("finished")
    suite = suite_of(folder)
    code, records = run(suite, folder / "results")
    assert code == 0
    return suite, folder / "results", records
