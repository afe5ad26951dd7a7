"""What a worker of a Ray cluster does: run a job, or attack some images of another worker's job.

A worker may be on a machine that sees neither the run's folders nor the data. Data comes through Ray's object store.
What is written goes to a folder of the worker's own then, and to the run's by way of the records' stream.
"""

from __future__ import annotations

import atexit
import pickle
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.plan import Job
from epsbench.harness.plan.recorded import RecordIndex
from epsbench.harness.records import Record
from epsbench.harness.run.attack.merging import Shard
from epsbench.harness.run.context import Context
from epsbench.harness.run.crew import HelperLostError
from epsbench.harness.run.executors.helper import Raised, answer
from epsbench.harness.run.executors.ray_files import fetch, reader
from epsbench.harness.run.executors.ray_progress import Posting, share_of
from epsbench.harness.run.jobs import run_job
from epsbench.harness.run.machine.environment import describe_helper
from epsbench.harness.run.robustness.workbench import Setup, Task, Workbench
from epsbench.harness.run.training.weights import weights_path

_LOOK = 0.2  # seconds between two looks at whether an answer is still waited for


@dataclass(frozen=True)
class Order:
    """What all tasks of a run need."""

    context: Context
    """Without data."""

    token: str
    """A file in the results folder: who sees it, sees the run's folders."""

    data: Sequence[Any]
    """One reference to the data in Ray's object store. In a list, so that Ray does not fetch it for every task."""

    ship: bool
    """Whether there are other machines, to which weights have to travel."""

    board: Any = None
    """The actor that workers post their progress to; None: progress is not shown."""

    files: Mapping[Path, int] = field(default_factory=dict)
    """The files that data is streamed from, with their sizes, where there are other machines."""

    node: str = ""
    """The node of the driver, which sees these files."""


@dataclass(frozen=True)
class Delivered:
    """A record, and the files that belong to it where the worker does not see the run's folders."""

    record: Record
    files: Mapping[str, bytes]
    """By their path: ``results/...`` or ``weights/...``."""


class Place:
    """Where a worker writes: the run's folders where it sees them, else a folder of its own."""

    def __init__(self, order: Order) -> None:
        self.shared = (order.context.results / order.token).is_file()
        self._sent: dict[Path, tuple[int, int]] = {}
        if self.shared:
            self.context = order.context
            return
        root = Path(tempfile.mkdtemp(prefix="epsbench-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        self._roots = {"results": root / "results", "weights": root / "weights"}
        for folder in self._roots.values():
            folder.mkdir()
        results = self._roots["results"]
        records = RecordIndex(results)
        self.context = replace(
            order.context, results=results, weights=self._roots["weights"], records=records, boards=False
        )

    def add_weights(self, files: Mapping[str, bytes]) -> None:
        """Weights that the run has already, by the names of their files."""
        if self.shared:
            return
        for name, content in files.items():
            path = self._roots["weights"] / name
            if not path.is_file():
                path.write_bytes(content)
                self._sent[path] = _state(path)

    def new_files(self) -> dict[str, bytes]:
        """What was written since the last call, where the run does not see it."""
        if self.shared:
            return {}
        files = {}
        for name, root in self._roots.items():
            for path in sorted(root.rglob("*")):
                hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
                if hidden or not path.is_file() or path.suffix == ".checkpoint" or "partial" in path.parts:
                    continue
                if self._sent.get(path) != _state(path):
                    self._sent[path] = _state(path)
                    files[f"{name}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
        return files


def _state(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, path.stat().st_size


def files_of_weights(folder: Path, cells: Sequence[Cell]) -> dict[str, bytes]:
    """The files of trained weights that these cells need, as far as they are there, by name."""
    needed: list[Cell] = list(cells)
    for cell in needed:  # it grows: a model may begin with the weights of another one
        if isinstance(cell, RobustnessCell):
            needed += [each for each in (*cell.sources, cell.start) if each is not None and each not in needed]
    files = {}
    for key in {cell.weights_key for cell in needed}:
        for path in (weights_path(folder, key), weights_path(folder, key).with_suffix(".npz")):
            if path.is_file():
                files[path.name] = path.read_bytes()
    return files


def work(job: Job, order: Order, weights: Mapping[str, bytes], devices: int, name: str = "") -> Iterator[Delivered]:
    """Run a job: its records as its cells end. ``devices`` attack its model; progress is posted by ``name``."""
    place = _place(order)
    place.add_weights(weights)
    # A worker runs many jobs: it keeps what it has read of the folder, and adds what other workers have written since.
    records = _RECORDS.setdefault(place.context.results, place.context.records)
    records.list_again()
    context = replace(_here(place.context, order), records=records, devices=devices)
    if order.board is not None:
        context = replace(context, progress=Posting(order.board, name))
    if devices > 1:
        context = replace(context, crew=Workers([Worker(order, place.context) for _ in range(devices - 1)]))
    for record in run_job(job, context):
        yield Delivered(record, place.new_files())


def attack(task: Task, order: Order, weights: Mapping[str, bytes], name: str = "") -> Any:
    """Attack some images: a `Shard`, or what was `Raised`. The share that is done is posted by ``name``."""
    place = _place(order)
    place.add_weights(weights)
    if order.token not in _BENCHES:
        _BENCHES.clear()
        _BENCHES[order.token] = Workbench(_here(place.context, order))

    def post(share: float) -> None:
        if order.board is not None:
            order.board.post_share.remote(name, share)

    return answer(_BENCHES[order.token], pickle.dumps(task), post)


_RECORDS: dict[Path, RecordIndex] = {}
_PLACES: dict[str, Place] = {}
_BENCHES: dict[str, Workbench] = {}
_DATA: dict[str, dict[Any, Any]] = {}
"""What this worker keeps from one task to the next, of one run at a time."""


def _place(order: Order) -> Place:
    if order.token not in _PLACES:
        _PLACES.clear()
        _PLACES[order.token] = Place(order)
    return _PLACES[order.token]


def _here(context: Context, order: Order) -> Context:
    """The context with this machine's description and the run's data."""
    if order.token not in _DATA:
        import ray

        _DATA.clear()
        fetch(order.files, reader(ray, order.node))
        device = context.device
        _DATA[order.token] = {key: data.to(device) for key, data in ray.get(order.data[0]).items()}
    # The worker describes its own environment: its node may differ from the driver's.
    environment = describe_helper(context.device, context.environment)
    return replace(context, environment=environment, _data=_DATA[order.token])


@dataclass
class Workers:
    """Other workers of the cluster that help with a job: a `Crew`."""

    helpers: Sequence[Worker]
    wanted: bool = True


class Worker:
    """A `Helper` on any machine of the cluster that has a device free. It is another one with every task, perhaps."""

    def __init__(self, order: Order, context: Context) -> None:
        self._context, self._order = context, order
        self._given: Any = None
        self._setup: Setup | None = None
        self._weights: Any = None
        self._dropped = False

    def prepare(self, setup: Setup, over: Callable[[], bool]) -> None:
        """As `Helper.prepare`: the weights are put where all workers get them."""
        import ray

        self._dropped = False
        self._given = self._given or ray.put(self._order)
        if self._setup != setup:
            cells = [setup.cell, *setup.sources]
            files = files_of_weights(self._context.weights, cells) if self._order.ship else {}
            self._weights, self._setup = ray.put(files), setup

    def attack(self, task: Task, at: Callable[[float], None]) -> Shard:
        """As `Helper.attack`."""
        import ray

        gpu = self._context.device.type == "cuda"
        remote = ray.remote(num_cpus=0 if gpu else 1, num_gpus=1 if gpu else 0, max_retries=0)(attack)
        name, board = uuid.uuid4().hex, self._order.board
        asked = remote.remote(task, self._given, self._weights, name)
        try:
            while not ray.wait([asked], timeout=_LOOK)[0]:
                if self._dropped:
                    ray.cancel(asked)
                    raise HelperLostError("it is not needed any more")
                if board is not None and (share := share_of(board, name)) is not None:
                    at(share)
            result = ray.get(asked)
        except ray.exceptions.RayError as error:
            raise HelperLostError(f"a worker of the cluster ended ({type(error).__name__})") from error
        if isinstance(result, Raised):
            raise result.error
        shard: Shard = result
        return shard

    def drop(self) -> None:
        """As `Helper.drop`."""
        self._dropped = True
