"""Builds the model again in a process of its own, which has seen nothing of the run, and compares the answers.

Only that shows what a model keeps outside itself, in globals, in files or in objects that its copies share.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor
from torch.nn import functional as F

from epsbench.harness.findings import Finding, finding
from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.names import registry
from epsbench.harness.run.audits.points import changed, spread
from epsbench.harness.run.audits.probe import Probe
from epsbench.harness.run.audits.replay import Replayed
from epsbench.harness.run.context import Context
from epsbench.harness.run.machine.environment import of_child
from epsbench.models.base import DataShape
from epsbench.models.catalogue import Custom, FromFile

CHILD = "epsbench.harness.run.audits.fresh_child"
TIMEOUT = 120.0  # seconds; importing torch takes 2 to 10
DIFFERS = 0.01  # of the spread of the logits; another process computes the same up to rounding
FEWEST = 2  # images; a single one may lie on an edge of a network that rounds inside


@dataclass(frozen=True)
class Shape:
    """The part of a description of data that a model is built from."""

    name: str
    shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Recipe:
    """How a model is built again."""

    model: Named
    """As the suite names it."""

    base: Path
    """The folder that the name is relative to."""

    shape: Shape
    """What it is built for."""

    device: str
    """Where it computes."""

    seed: int = 0
    """The seed of its first weights."""

    kept: tuple[Path, str] | None = None
    """Folder and key of its trained weights; None where it is measured as it is built."""


def recipe_of(cell: RobustnessCell, shape: DataShape, context: Context) -> Recipe | None:
    """How the model of a cell is built again; None for models without code of the user's, which hide nothing."""
    trained = bool(dict(cell.training)["epochs"]) or cell.start is not None
    kept = (context.weights.resolve(), cell.weights_key) if trained else None
    return _recipe(cell.model, shape, context, seed=cell.seed, kept=kept)


def recipe_of_name(model: Named, shape: DataShape, context: Context) -> Recipe | None:
    """The same for a model that no cell names."""
    return _recipe(model, shape, context)


def _recipe(
    model: Named,
    shape: DataShape,
    context: Context,
    seed: int = 0,
    kept: tuple[Path, str] | None = None,
) -> Recipe | None:
    if registry.in_memory("model", model.name) is not None:
        return None  # an object of this process cannot be built elsewhere
    architecture = registry.make("model", model, context.base)
    if not isinstance(architecture.inner() if isinstance(architecture, FromFile) else architecture, Custom):
        return None
    built_for = Shape(shape.name, shape.shape, shape.classes, shape.mean, shape.std)
    return Recipe(model, context.base.resolve(), built_for, str(context.device), seed, kept)


class FreshProcess:
    """A process that builds a model while this one goes on, and then answers once.

    ``with FreshProcess(recipe) as process:`` starts it and makes sure that it ends, also when the run is interrupted.
    If the run is killed, the process ends as soon as it has built the model. `logits` says why one could not start.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._process: subprocess.Popen[bytes] | None = None
        self._ends = ExitStack()
        self._failure: OSError | None = None

    def __enter__(self) -> FreshProcess:
        try:
            # A folder that cannot be removed again is no reason to fail.
            folder = tempfile.TemporaryDirectory(prefix="epsbench-audit-", ignore_cleanup_errors=True)
            self._path = Path(self._ends.enter_context(folder))
            (self._path / "recipe").write_bytes(pickle.dumps(self._recipe))
            with (self._path / "errors").open("wb") as errors:
                # -P: a file of the current folder that is named like a module of Python's is not taken for it.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", CHILD, str(self._path)],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors,
                    env=of_child(torch.get_num_threads()),
                )  # fmt: skip
        except OSError as error:  # no room, no right to write, no more processes
            self._failure = error
        return self

    def logits(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits (N, classes) of each set of images (N, C, H, W) by name, asked in this order.

        Raises `RuntimeError` if the model cannot be built there, or does not answer in time.
        """
        if self._process is None:
            raise RuntimeError(f"no process can be started to build the model again: {self._failure}")
        torch.save({name: x.cpu() for name, x in images.items()}, self._path / "images")
        try:
            self._process.communicate(b"ask\n", timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"a process that builds the model again takes longer than {TIMEOUT:.0f} s") from None
        if self._process.returncode:
            lines = (self._path / "errors").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {self._process.returncode}"
            raise RuntimeError(f"the model cannot be built again in a process of its own: {reason}")
        answers: dict[str, Tensor] = torch.load(self._path / "logits")
        return {name: answers[name].to(x.device) for name, x in images.items()}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._ends:
            if self._process is not None:
                self._process.kill()
                self._process.communicate()


def audit_fresh_process(
    process: FreshProcess, probe: Probe, moved: Mapping[str, Tensor], replayed: Replayed | None
) -> Iterator[Finding]:
    """Compare logits at the ``moved`` images, by name, and the recorded losses of adversarial images.

    The process is asked about adversarial images first, before it has seen a clean one.
    """
    sets = {"adversarial": replayed.x} if replayed else {}
    names = list(moved)[::-1]
    answers = process.logits(sets | {name: moved[name] for name in names})
    if replayed:
        logits = answers["adversarial"]
        loss = F.cross_entropy(logits, replayed.y, reduction="none")
        rows = int(((loss - replayed.loss).abs() > 2 * DIFFERS * spread(logits)).sum())
        if rows >= FEWEST:
            yield _differs(rows, len(loss), "adversarial")
            return
    for name in names:
        expected = probe.logits_at(moved[name])
        rows = changed(answers[name], expected, DIFFERS * spread(expected))
        if rows >= FEWEST:
            yield _differs(rows, len(expected), name)
            return


def _differs(rows: int, of: int, where: str) -> Finding:
    fact = f"built again in a process of its own, the model answers otherwise on {rows} of {of} images ({where})"
    return finding("differs-in-fresh-process", fact, images=rows, of=of, where=where)
