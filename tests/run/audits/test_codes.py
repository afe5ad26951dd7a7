"""The list of codes is the documented one; every code is used, and every used code is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from epsbench.harness.finding_codes import CODES
from epsbench.harness.findings import finding

ROOT = Path(__file__).parents[3]


def test_the_documented_table_is_the_list_of_codes():
    text = (ROOT / "docs" / "audits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (void|warning) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(name, code.severity, code.meaning, code.remedy) for name, code in CODES.items()]


def test_every_code_is_in_use_and_every_one_used_is_listed():
    sources = [path for path in (ROOT / "harness" / "run").rglob("*.py") if path.name != "codes.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert {name for name in CODES if f'"{name}"' not in text} == set()
    assert set(re.findall(r'(?:finding|slower)\(\s*"([^"]+)"', text)) <= set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_finding_says_what_was_seen_and_then_what_to_do(code):
    made = finding(code, "something was seen", images=3)
    assert made.message == f"something was seen; {CODES[code].remedy}"
    assert (made.severity, made.evidence) == (CODES[code].severity, {"images": 3})
