"""The names of devices, by which records of this machine are told apart from those of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from epsbench.harness import hardware


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file in place of the system's own."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "_CPUINFO", path)
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 2)
    hardware.cpu_name.cache_clear()
    yield path
    hardware.cpu_name.cache_clear()


def core(family: int, model: int) -> str:
    return f"processor\t: 0\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n\n"


def test_processors_of_one_name_are_two_kinds(cpuinfo: Path) -> None:
    cpuinfo.write_text(core(25, 1) + core(25, 1))
    assert hardware.cpu_name() == "AMD EPYC (family 25, model 1), 2 cores"
    hardware.cpu_name.cache_clear()
    cpuinfo.write_text(core(26, 2))
    assert hardware.cpu_name() == "AMD EPYC (family 26, model 2), 2 cores"


@pytest.mark.parametrize("text", ["processor\t: 0\nBogoMIPS\t: 50.00\n", None])
def test_a_processor_without_these_facts_has_a_name(cpuinfo: Path, text: str | None) -> None:
    if text is not None:
        cpuinfo.write_text(text)
    name = hardware.cpu_name()
    assert name.endswith(", 2 cores")
    assert not name.startswith((",", " "))
    assert "(" not in name
