"""A few thousand inputs of the fuzzer's properties; `fuzz_*.py` runs as many as one likes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import properties


@pytest.mark.parametrize(
    ("name", "examples"),
    [("record_is_read_or_refused", 2000), ("report_is_rendered_or_refused", 800), ("page_is_rendered_or_refused", 8)],
)
def test_property(name, examples):
    properties.tested(getattr(properties, name), examples)()
