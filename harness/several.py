"""Several suites in one command: all are read first, then one after the other is done. No torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from epsbench.harness.errors import InputError
from epsbench.harness.options import INTERRUPTED, TIME_IS_UP, Options
from epsbench.harness.plan.remembered import load_to_show
from epsbench.harness.plan.suite import Suite, load_suite

MEASURED, BAD, CANNOT_RUN = 0, 1, 2
RUN_ORDER = (INTERRUPTED, CANNOT_RUN, TIME_IS_UP, BAD, MEASURED)
"""Exit codes of a run of several suites: the first of these that any suite had."""
CHECK_ORDER = (1, 2, 0)
"""The same of checks: a broken bound before one that was not measured."""
STATES = {MEASURED: "measured", BAD: "measured, and some cells failed or are void", CANNOT_RUN: "cannot run or report",
          TIME_IS_UP: "not finished in time", INTERRUPTED: "stopped"}  # fmt: skip

Echo = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """A suite and the folder of its results."""

    suite: Suite
    results: Path
    known: bool = False
    """Whether the suite comes from the cache, and so was tried before."""


def load_suites(
    names: Sequence[str],
    out: Path | None,
    limit: int | None,
    precision: str | None,
    changes: Iterable[str] = (),
    to_show: bool = False,
) -> list[Work]:
    """The suites of a command. One suite's results are in ``out``, those of several in a folder each inside it.

    Without ``out`` that is ``results/<suite name>``. Raises one `InputError` with the problems of all suites, and for
    two suites that would share a folder. Suites that are only shown may come from a cache
    (`epsbench.harness.plan.remembered`).
    """
    changes = list(changes)
    problems: list[str] = []
    works: list[Work] = []
    for name in names:
        try:
            suite, known = (
                load_to_show(name, limit, precision, changes)
                if to_show
                else (load_suite(name, limit, precision, changes), False)
            )
        except InputError as error:
            problems += error.messages
            continue
        place = out if out is not None and len(names) == 1 else (out or Path("results")) / suite.name
        if any(work.results == place for work in works):
            problems.append(f"{name}: another suite of this command is called {suite.name} too; run them one at a time")
        works.append(Work(suite, place, known))
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return works


def run_each(
    works: Sequence[Work],
    options: Options,
    save_images: Path | None,
    echo: Echo,
    measure: Callable[[Suite, Path, Options, Path | None, Echo], int],
) -> int:
    """Measure one suite after the other; returns the exit code of all.

    A suite that cannot run does not stop the others; an interruption does, and what is recorded stays. A time limit is
    for all of them together.
    """
    if len(works) == 1:
        return measure(works[0].suite, works[0].results, options, save_images, echo)
    began = time.monotonic()
    codes: dict[str, int] = {}
    for number, work in enumerate(works, 1):
        echo(f"== {work.suite.name} ({number} of {len(works)}), results in {work.results}")
        left = None if options.time_limit is None else options.time_limit - (time.monotonic() - began)
        if left is not None and left <= 0:
            codes[work.suite.name] = TIME_IS_UP
            continue
        file = own_file(save_images, work.suite.name)
        try:
            codes[work.suite.name] = measure(work.suite, work.results, replace(options, time_limit=left), file, echo)
        except InputError as error:
            for message in error.messages:
                print(f"epsbench: {work.suite.name}: {message}", file=sys.stderr)
            codes[work.suite.name] = CANNOT_RUN
        if codes[work.suite.name] == INTERRUPTED:
            break
    echo("== all suites")
    for work in works:
        code = codes.get(work.suite.name)
        echo(f"{work.suite.name}: {'not begun' if code is None else STATES.get(code, code)}")
    return worst(codes.values(), RUN_ORDER)


def worst(codes: Iterable[int], order: Sequence[int]) -> int:
    """The first of ``order`` that is among the codes."""
    codes = set(codes)
    return next(code for code in order if code in codes)


def own_file(path: Path | None, name: str) -> Path | None:
    """The file of one suite where a command has several: ``check.xml`` becomes ``check-mnist.xml``."""
    return None if path is None else path.with_name(f"{path.stem}-{name}{path.suffix}")
