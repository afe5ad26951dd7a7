"""The tables of ``epsbench list`` and ``epsbench plan``. No torch."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from epsbench.harness.errors import InputError, printable
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.plan.estimate import Estimator
from epsbench.harness.plan.names.kinds import KINDS, known_names
from epsbench.harness.plan.names.loading import load_object
from epsbench.harness.plan.names.parameters import Parameter
from epsbench.harness.plan.names.registry import Source, parameters, resolve
from epsbench.harness.plan.plan import Plan
from epsbench.harness.plan.suite import load_suite, shipped_suites
from epsbench.harness.plan.training_text import how_trained
from epsbench.models.preprocessing import preprocessing_text


def plain(text: str) -> str:
    """Text that a console shows as it is: no markup of rich's, and control characters written out."""
    return escape(printable(text))


def empty_table(title: str, *columns: str) -> Table:
    """A table without rows; its cells wrap at words."""
    table = Table(title=plain(title), title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _named(kind: str) -> Table:
    table = empty_table(f"{kind}s", "name", "parameters and defaults", "what it is")
    for name in known_names(kind):
        try:
            source = resolve(kind, name, Path.cwd())
            table.add_row(escape(name), escape(_parameters(kind, source)), escape(_first_line(source.factory)))
        except InputError as error:  # an installed package whose entry point is broken
            table.add_row(escape(name), "", f"[red]{escape(str(error))}[/red]")
    for address, (target, _) in zip(KINDS[kind].addresses, KINDS[kind].prefixes.values(), strict=True):
        factory = load_object(target, Path.cwd())
        table.add_row(address, escape(_parameters(kind, Source(factory))), escape(_first_line(factory)))
    table.caption = "your own: module:Object, or path/to/file.py:Object relative to the suite"
    return table


def _datasets() -> Table:
    table = empty_table("datasets", "name", "shape", "classes", "train", "validation", "test")
    for each in DATASETS.values():
        table.add_row(
            each.name, "×".join(map(str, each.shape)), str(each.classes), *(f"{size:,}" for size in each.sizes)
        )
    own = ", ".join(f"{{ name = {name!r}, … }}" for name in KINDS["data"].built_in)
    table.caption = escape(f"your own: test.npz, a folder of images, path/to/file.py:Object; with parameters: {own}")
    return table


def _suites() -> Table:
    table = empty_table("suites", "name", "cells", "what it measures")
    libraries = [prefix for prefix, (_, key) in KINDS["attack"].prefixes.items() if key == "attack_name"]
    for name, path in shipped_suites().items():
        text = path.read_text(encoding="utf-8")
        if any(f'"{prefix}:' in text for prefix in libraries):  # loading it imports them, which takes seconds
            table.add_row(name, "", escape(tomllib.loads(text)["description"]))
            continue
        suite = load_suite(name)
        table.add_row(name, str(len(suite.cells)), escape(suite.description))
    return table


LISTS: dict[str, Callable[[], Table]] = {
    "attacks": lambda: _named("attack"),
    "defenses": lambda: _named("defense"),
    "models": lambda: _named("model"),
    "datasets": _datasets,
    "suites": _suites,
}


def plan_table(plan: Plan, estimator: Estimator | None = None) -> Table:
    """One row a job: its model, its cells, how many are recorded, the gradients that its attacks will take, the time.

    The time is there where the estimator knows any rate.
    """
    timed = estimator is not None and estimator.rates.records > 0
    table = empty_table(
        f"plan of {plan.suite.name}", "job", "model", "training", "cells", "done", "to do", "gradients to do",
        *(["time to do"] if timed else []),
    )  # fmt: skip
    left_of = {job.key: job for job in plan.pending_jobs}
    pending = {cell.id for cell in plan.pending}
    for job in plan.jobs:
        left = [cell for cell in job.cells if cell.id in pending]
        table.add_row(
            job.key[:8], plain(_trained(job.cells[0])), _training(job.cells[0], estimator), str(len(job.cells)),
            str(len(job.cells) - len(left)), str(len(left)), str(plan.predicted_gradients(left)),
            *([str(estimator.jobs([left_of[job.key]])) if left else ""] if timed and estimator else []),
        )  # fmt: skip
    return table


def estimate_text(plan: Plan, estimator: Estimator) -> str:
    """One line: how long the rest will take, trainings and measurements apart, or why it is not known."""
    if not plan.pending:
        return ""
    if not estimator.rates.records:
        return "time to do: not known; the results folder and those beside it have no record of this machine"
    total = estimator.jobs(plan.pending_jobs)
    text = f"time to do: {total}, by {estimator.rates.records:,} records of this machine"
    if total.known:
        return text
    names = dict.fromkeys(
        f"{job.cells[0].model.label()} on {job.cells[0].data}"
        for job in plan.pending_jobs
        if not estimator.jobs([job]).known
    )
    some = ", ".join(list(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{text}; no record of this machine says how long all of {some} takes"


def preparation_lines(plan: Plan) -> list[str]:
    """One line for each model of timm and torchvision: what it does to images, and what it was published for.

    Imports the library, but builds nothing.
    """
    names = {cell.model.name for cell in plan.suite.cells if isinstance(cell, RobustnessCell)}
    lines = []
    for name in sorted(names):
        library, _, model = name.partition(":")
        if library in ("timm", "torchvision"):
            from epsbench.models.hub import published

            known = published(library, model)
            lines += [f"{name} {preprocessing_text(known.record())}"] if known else []
    return lines


def plan_summary(plan: Plan) -> str:
    """One line: how many cells and jobs there are, and how many the next run computes."""
    total = sum(len(job.cells) for job in plan.jobs)
    return (
        f"{total} cells in {len(plan.jobs)} jobs: {len(plan.done)} done, {len(plan.void)} void, "
        f"{len(plan.failed)} failed (run again), {len(plan.pending)} to do in {len(plan.pending_jobs)} jobs"
    )


def nothing_to_do(made: Plan) -> str:
    """The first line of a run without work: since when every cell has its record."""
    newest = made.records.newest([cell.id for cell in made.suite.cells])
    when = f" by {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
    many = len(made.suite.cells)
    return f"nothing to do: {f'all {many:,} cells were' if many > 1 else 'the cell was'} recorded{when}"


def _training(cell: Cell, estimator: Estimator | None) -> str:
    """``"trains 10 epochs on 45,000 images"``, or that they are over, or ``"as given"``."""
    how = how_trained(cell)
    if how.startswith("as "):
        return how
    return f"trained: {how}" if estimator is not None and estimator.is_trained(cell) else f"trains {how}"


def _trained(cell: Cell) -> str:
    if isinstance(cell, RobustnessCell):
        asked = [f"{cell.randomness.samples} samples, {cell.randomness.votes} votes"] if cell.randomness else []
        parts = [*cell.trained_parts(), *asked]
    else:
        parts = [cell.model.label(), f"z_dim {cell.z_dim}", f"beta {cell.beta:g}"]
    changes = [cell.changes] if cell.changes else []
    return " · ".join([str(cell.data), *parts, *changes, f"seed {cell.seed}"])


def _parameters(kind: str, source: Source) -> str:
    """``"steps = 10"`` and so on, one parameter a line."""
    return "\n".join(_parameter(each) for each in parameters(kind, source).values())


def _parameter(parameter: Parameter) -> str:
    return parameter.name if parameter.required else f"{parameter.name} = {_value(parameter.default)}"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _first_line(factory: Callable[..., object]) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]
