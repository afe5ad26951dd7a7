"""A small suite to vary, and how to load one from text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from epsbench.harness.errors import InputError
from epsbench.harness.plan import recorded
from epsbench.harness.plan.suite import Suite, load_suite

SMALL = """
[robustness]
data = "digits"

[robustness.matrix]
model = "smallcnn"
defense = ["none", "fgsm-loss"]
attack = ["noise", "fgsm", { name = "pgd", steps = 4 }]
eps = ["8/255", 0.1]
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Suite]:
    """Load a suite from its text."""

    def from_text(text: str, name: str = "suite") -> Suite:
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return load_suite(str(path))

    return from_text


@pytest.fixture
def refused(load: Callable[[str], Suite]) -> Callable[[str], str]:
    """The message with which a suite is refused; every line of it names the file."""

    def message(text: str) -> str:
        with pytest.raises(InputError) as raised:
            load(text)
        assert all("suite.toml: " in line for line in raised.value.messages)
        return str(raised.value)

    return message


@pytest.fixture
def small() -> str:
    """The text of a suite of 12 cells on two models."""
    return SMALL


@pytest.fixture
def read(monkeypatch):
    """The ids of the records that are read, in order."""
    ids: list[str] = []
    original = recorded.find_record
    monkeypatch.setattr(recorded, "find_record", lambda results, name: ids.append(name) or original(results, name))
    return ids
