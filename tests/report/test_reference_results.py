"""The reference results say today what they said when they were measured: exports, bounds, and the committed report."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.report.build import FORMATS
from epsbench.harness.report.content import Content
from epsbench.harness.report.gates.check import OUTCOMES, check_suite
from epsbench.harness.report.results.loading import load_results

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
EXPECTED = json.loads(Path(__file__).with_name("reference_results.json").read_text(encoding="utf-8"))
"""By suite: the SHA-256 of its exports, and the exit code and verdicts of its check; null for a suite without bounds.

A suite that was measured anew, or added, needs a new entry.
"""
suites = pytest.mark.parametrize("suite", sorted(EXPECTED))


@pytest.fixture(scope="module")
def contents() -> dict[str, Content]:
    return {suite: Content(load_results(REFERENCE / suite)) for suite in EXPECTED}


def test_every_reference_folder_has_an_entry():
    assert {folder.name for folder in REFERENCE.iterdir() if (folder / "cells").is_dir()} == set(EXPECTED)


@suites
@pytest.mark.parametrize("fmt", ["csv", "json"])
def test_the_exports_are_the_same_byte_for_byte(contents, suite, fmt):
    export = FORMATS[fmt](contents[suite])
    assert hashlib.sha256(export.encode()).hexdigest() == EXPECTED[suite][fmt]


@suites
def test_check_gives_the_same_verdicts(suite, skip_without_libraries):
    skip_without_libraries(suite)
    loaded, expected = load_suite(suite), EXPECTED[suite]["check"]
    if expected is None:
        with pytest.raises(InputError, match="no bounds"):
            check_suite(loaded, REFERENCE / suite)
        return
    code, text = check_suite(loaded, REFERENCE / suite)
    bounds = text.splitlines()[:-1]
    verdicts = Counter(verdict for line in bounds for verdict in OUTCOMES if line.startswith(f"{verdict:<12}  "))
    assert (code, dict(verdicts)) == (expected["code"], expected["verdicts"])
    assert len(bounds) == verdicts.total()


@suites
def test_the_committed_report_is_what_is_rendered_today(contents, suite):
    committed = (REFERENCE / suite / "report.md").read_text(encoding="utf-8")
    assert committed == FORMATS["markdown"](contents[suite]), f"run `epsbench report results/reference/{suite}`"
