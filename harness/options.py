"""How a suite is run, as opposed to what it measures. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The command line's options of ``epsbench run``; ``None`` leaves the choice to the runner."""

    data_root: Path | None = None
    device: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    weights: Path | None = None
    profile: bool = False
    executor: str = "local"
    quiet: bool = False
    compile: str = "auto"
