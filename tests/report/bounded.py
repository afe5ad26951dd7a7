"""Suites with bounds for the tests of the gates: what `check` needs of a suite, without a suite file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factory
import numpy as np


@dataclass
class Bound:
    min: float | None = None
    max: float | None = None


def suite_of(*records, bounds: dict[str, Bound], strict: bool = False, name: str = "gate") -> Any:
    """What check needs of a suite, for the cells of these records."""
    cells = tuple(SimpleNamespace(id=r.id, canonical=lambda r=r: r.cell) for r in records)
    expectation = SimpleNamespace(
        task=records[0].cell["task"], where={}, bounds=bounds, strict=strict, cells=cells, label="all"
    )
    return SimpleNamespace(name=name, path=Path("gate.toml"), cells=cells, expectations=(expectation,), arguments=())


def robust(share: float, n: int = 1000, **axes):
    return factory.robustness(np.ones(n, dtype=bool), np.arange(n) < share * n, **axes)
