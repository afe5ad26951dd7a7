"""Findings and failures as SARIF 2.1.0, which code scanning services show beside the code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from epsbench import __version__
from epsbench.harness.files import write_atomically
from epsbench.harness.finding_codes import CODES
from epsbench.harness.records import Record
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import plural, visible

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FAILED = "cell-failed"
LEVELS = {"void": "error", "warning": "warning"}


def write(results: Results, out: Path) -> str:
    """Write the file ``out``: one result for every finding and every failed cell."""
    findings = [result for record in results.current for result in _results(record, results)]
    driver = {
        "name": "epsbench", "version": __version__,
        "rules": list(_rules({each["ruleId"] for each in findings})),
    }  # fmt: skip
    run = {"tool": {"driver": driver}, "results": findings, "columnKind": "unicodeCodePoints"}
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    write_atomically(out, (json.dumps(log, indent=1, ensure_ascii=False) + "\n").encode())
    return f"{out}: {plural(len(findings), 'finding')} of {plural(len(results.current), 'cell')}"


def _rules(used: set[str]) -> Iterator[dict[str, Any]]:
    """The rules that results name, each with its meaning and remedy."""
    for code in sorted(used):
        if code in CODES:
            kind = CODES[code]
            yield {
                "id": code,
                "shortDescription": {"text": kind.meaning},
                "help": {"text": f"{kind.remedy[:1].upper()}{kind.remedy[1:]}."},
                "defaultConfiguration": {"level": LEVELS[kind.severity]},
            }
        else:
            meaning = "The cell raised an error." if code == FAILED else code
            yield {"id": code, "shortDescription": {"text": meaning}, "defaultConfiguration": {"level": "error"}}


def _results(record: Record, results: Results) -> Iterator[dict[str, Any]]:
    if record.failure is not None:
        yield _result(record, results, FAILED, "error", visible(record.failure.text), {})
    for finding in record.findings:
        message = visible(finding.message)
        yield _result(record, results, visible(finding.code), LEVELS[finding.severity], message, finding.evidence)


def _result(
    record: Record, results: Results, rule: str, level: str, message: str, evidence: dict[str, Any]
) -> dict[str, Any]:
    cell = results.names.cell(record.cell)
    file = (results.home(record) / "cells" / f"{record.id}.json").as_posix()
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": f"{cell}: {message}"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": quote(file)}, "region": {"startLine": 1}},
                "logicalLocations": [{"name": cell, "fullyQualifiedName": record.id, "kind": "cell"}],
            }
        ],
        "partialFingerprints": {"cell/v1": record.id, "rule/v1": rule},
        "properties": {"evidence": evidence, "suite": record.suite},
    }
