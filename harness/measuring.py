"""What the verbs `run` and `evaluate` share: measure what is not recorded, report, and save images. No torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from epsbench.harness.choices import Format
from epsbench.harness.errors import InputError
from epsbench.harness.files import FileStamp, stamp_of
from epsbench.harness.options import INTERRUPTED, TIME_IS_UP, Options
from epsbench.harness.plan.plan import plan, require_writable
from epsbench.harness.plan.suite import Suite
from epsbench.harness.several import CANNOT_RUN, RUN_ORDER, worst

Echo = Callable[[str], None]


def require_folder(folder: Path | None) -> None:
    """Raise `InputError` where the folder of data sets is the name of one."""
    from epsbench.harness.plan.data import DATASETS

    if folder is not None and str(folder) in DATASETS and not folder.is_dir():
        raise InputError(
            f"--data-folder {folder}: {folder} is a data set, and this option is the folder that data sets are in; "
            f"the data of a suite is changed with --set robustness.data={folder}"
        )


def measure(suite: Suite, results: Path, options: Options, save_images: Path | None, echo: Echo) -> int:
    """Measure what is not recorded, print the report with ``echo``, and return the exit code of the verb."""
    if save_images is not None:
        from epsbench.harness.evaluate_verb import require_free

        require_free(suite, save_images)
    made = plan(suite, results, images=options.keep_images)
    if not made.pending and not options.profile:
        from epsbench.harness.listing import nothing_to_do

        echo(nothing_to_do(made))
        echo(_unchanged_report(results))
        _save_images(suite, results, save_images, echo)
        return _with_report(1 if made.void else 0, results, {})
    require_writable(results)
    from epsbench.harness.run.runner import run_suite

    code = run_suite(suite, results, options, made.records)
    nothing = code == TIME_IS_UP and not any((results / "cells").glob("*.json"))  # which was said
    if code != INTERRUPTED and not nothing:
        before = _stamps(results)
        echo(_report(results))
        _save_images(suite, results, save_images, echo)
        return _with_report(code, results, before)
    return code


def _with_report(code: int, results: Path, before: Mapping[str, FileStamp | None]) -> int:
    """The exit code of a run whose reports had these stamps before it wrote them.

    It is `CANNOT_RUN` where one is missing or was not written. The last lines of the report name it.
    """
    written = all(stamp is not None and stamp != before.get(name) for name, stamp in _stamps(results).items())
    return code if written else worst((code, CANNOT_RUN), RUN_ORDER)


def _stamps(results: Path) -> dict[str, FileStamp | None]:
    """When the reports beside the records were written; None for one that is no file."""
    from epsbench.harness.report.build import BESIDE

    return {name: stamp_of(results / name) if (results / name).is_file() else None for name in BESIDE}


MANY = 500
"""So many records are reported on in a process of its own: torch and all records together take a gigabyte."""


def _report(results: Path) -> str:
    """The report as text; report.html and report.md are written."""
    if sum(1 for _ in (results / "cells").glob("*.json")) >= MANY:
        command = [sys.executable, "-m", "epsbench", "report", str(results)]
        environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, env=environment)
        if done.returncode == 0:
            return done.stdout.decode("utf-8").removesuffix("\n")
    from epsbench.harness.report.build import report

    return report(results, Format.TEXT)


def _save_images(suite: Suite, results: Path, path: Path | None, echo: Echo) -> None:
    if path is not None:
        from epsbench.harness.evaluate_verb import saved_images

        echo(saved_images(suite, results, path))


def _unchanged_report(results: Path) -> str:
    """The report as text when nothing was added. report.html is not written again, which would take seconds."""
    from epsbench.harness.report.build import BESIDE, report

    return report(results, Format.TEXT, beside=not all((results / name).is_file() for name in BESIDE))
