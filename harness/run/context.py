"""What every job of a run shares: where things lie, on which device, and whom to tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.progress import Reporter, Silent


class Board(Protocol):
    """The part of TensorBoard's writer that jobs use."""

    def add_scalar(self, tag: str, value: float, step: int) -> None: ...
    def close(self) -> None: ...


class NoBoard:
    """Keeps no curves."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Context:
    """One run of one suite. ``base`` is the suite's folder, against which ``path.py:Object`` names resolve."""

    results: Path
    weights: Path
    device: torch.device
    suite: str
    base: Path
    description: str = ""
    data_root: Path | None = None
    batch_size: int | None = None
    profile: bool = False
    compile: str = "auto"
    boards: bool = True
    environment: dict[str, Any] = field(default_factory=dict)
    progress: Reporter = field(default_factory=Silent)
    _data: dict[tuple[str, int | None], Data] = field(default_factory=dict)

    def data(self, name: str, limit: int | None) -> Data:
        """A data set on the device, read once a run."""
        if (name, limit) not in self._data:
            self._data[name, limit] = load_data(name, self.data_root, self.device, limit)
        return self._data[name, limit]

    def precision(self, wanted: str) -> str:
        """What "auto" means here: bf16 on CUDA, float32 elsewhere."""
        if wanted != "auto":
            return wanted
        return "bf16" if self.device.type == "cuda" else "float32"

    def board(self, key: str) -> Board:
        """Where a model's training curves go for TensorBoard: ``RESULTS/tensorboard/<key>``."""
        if not self.boards:
            return NoBoard()
        from torch.utils.tensorboard import SummaryWriter

        writer: Board = SummaryWriter(str(self.results / "tensorboard" / key))
        return writer

    def clock(self) -> str:
        """Now, in UTC, ISO 8601."""
        return datetime.now(UTC).isoformat(timespec="milliseconds")
