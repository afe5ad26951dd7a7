"""What all jobs of a run share: folders, device, data, and where to report progress."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from epsbench.harness.errors import summary
from epsbench.harness.findings import Finding
from epsbench.harness.plan.cell import Cell
from epsbench.harness.plan.data.own import OwnData
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.records import Record, Status
from epsbench.harness.run.crew import Crew
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.machine.precision import has_units, no_units
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


class GuardedBoard:
    """TensorBoard's writer. Where it cannot write, the training goes on without it: the record has the curves too."""

    def __init__(self, folder: Path) -> None:
        self._writer: Board = NoBoard()
        self._try(lambda: self._open(folder))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write one value; see the class."""
        self._try(lambda: self._writer.add_scalar(tag, value, step))

    def close(self) -> None:
        """Write what is left; see the class."""
        self._try(lambda: self._writer.close())

    def _open(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        # Besides disks that are full: a protobuf of another version, no memory, no further thread.
        except Exception as error:  # noqa: BLE001
            self._writer = NoBoard()
            sys.stderr.write(f"epsbench: no curves for TensorBoard ({summary(error)}); the records have them\n")


@dataclass
class Context:
    """One run of one suite."""

    results: Path
    """The results folder."""

    weights: Path
    """The folder of trained weights."""

    device: torch.device
    """Where networks are trained and attacked."""

    suite: str
    """The suite's name."""

    base: Path
    """The suite's folder, against which names such as ``mine.py:Attack`` resolve."""

    description: str = ""
    """The suite's description, for its records."""

    data_root: Path | None = None
    """The folder of data sets; None: ``EPSBENCH_DATA`` or the cache."""

    batch_size: int | None = None
    """Rows attacked at a time; None: chosen by trial."""

    profile: bool = False
    """Whether to write profiler traces of each attack too."""

    compile: str = "auto"
    """Whether to compile or trace networks: "auto" where it pays, "on" or "off"."""

    remember: bool = False
    """Whether audits of a model are taken over from an earlier run of this process, where it answers as then."""

    keep_images: int = 0
    """Of how many test images, the first ones, the adversarial images are kept."""

    threads: int | None = None
    """How many threads a CPU computes with; None: by trying."""

    devices: int = 0
    """How many devices attack one model together; 0: as the executor finds best."""

    crew: Crew | None = None
    """The other ones of them."""

    reserve: Callable[[int], Crew] | None = None
    """Gives so many processes of this machine, of which this one is the first, where an attack gains by them."""

    boards: bool = True
    """Whether to write curves for TensorBoard."""

    environment: dict[str, Any] = field(default_factory=dict)
    """Machine and versions, for the records."""

    progress: Reporter = field(default_factory=Silent)
    """Where jobs report how far they are."""

    records: RecordIndex = None  # type: ignore[assignment]
    """What the results folder holds. Left out: a new index of that folder."""

    _data: dict[tuple[str | OwnData, int | None], Data] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.records is None:
            self.records = RecordIndex(self.results)

    def data(self, name: str | OwnData, limit: int | None) -> Data:
        """A data set on the device, read once a run."""
        if (name, limit) not in self._data:
            with self.progress.task(f"loading {name}", None):
                self._data[name, limit] = load_data(name, self.data_root, self.device, limit)
        return self._data[name, limit]

    def precision(self, wanted: str) -> str:
        """What networks compute in here, where a suite has ``wanted``; "auto" is bf16 on CUDA, float32 elsewhere.

        It is float32 for a precision that the device has no units for.
        """
        if wanted == "auto":
            wanted = "bf16" if self.device.type == "cuda" else "float32"
        return wanted if has_units(self.device, wanted) else "float32"

    def precision_findings(self, wanted: str) -> list[Finding]:
        """The finding that networks do not compute in the precision that a suite has."""
        return [] if wanted in ("auto", self.precision(wanted)) else [no_units(wanted)]

    @property
    def most_threads(self) -> int:
        """How many threads may be tried; one where the number is given."""
        return 1 if self.threads is not None else int(self.environment.get("threads", 1))

    @property
    def threads_of_an_attack(self) -> int:
        """How many threads each of several processes may attack with on a CPU."""
        return max(1, (self.threads or self.most_threads) // max(1, self.devices))

    def board(self, key: str) -> Board:
        """Where a model's training curves go for TensorBoard: ``RESULTS/tensorboard/<key>``."""
        return GuardedBoard(self.results / "tensorboard" / key) if self.boards else NoBoard()

    def clock(self) -> str:
        """Now, in UTC, ISO 8601."""
        return datetime.now(UTC).isoformat(timespec="milliseconds")

    def device_name(self) -> str:
        """The device as records name it."""
        name: str = self.environment.get("device", {}).get("name", self.device.type)
        return name

    def record(self, cell: Cell, status: Status, started: str, **measured: Any) -> Record:
        """The record of a cell that ends now.

        ``started`` is the time it began, ``measured`` are the fields of `Record` that only this kind of cell has.
        """
        measured["findings"] = (*self.precision_findings(cell.precision), *measured.get("findings", ()))
        return Record(
            id=cell.id,
            status=status,
            suite=self.suite,
            description=self.description,
            cell=cell.canonical(),
            code=cell.code,
            environment=self.environment,
            started=started,
            finished=self.clock(),
            **measured,
        )
