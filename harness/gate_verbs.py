"""The verbs that judge records: against the bounds of a suite, and against another results folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from epsbench.harness.choices import Changes, Junit, Limit, Out, PrecisionOption, SuitesArgument
from epsbench.harness.report_verbs import echo


def check(
    suites: SuitesArgument,
    out: Out = None,
    change: Changes = None,
    limit: Limit = None,
    precision: PrecisionOption = None,
    junit: Junit = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The results folder that costs can be relative to.")
    ] = None,
    badge: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Also write the verdict as a badge.")] = None,
) -> None:
    """Compare records with the suite's bounds. Exit code 0: all hold, 1: one is broken, 2: a cell is not measured."""
    from epsbench.harness.report.gates.check import check_suite
    from epsbench.harness.several import CHECK_ORDER, load_suites, own_file, worst

    codes = []
    works = load_suites(suites, out, limit, precision and precision.value, change or ())
    for work in works:
        files = [own_file(file, work.suite.name) if len(works) > 1 else file for file in (junit, badge)]
        code, text = check_suite(work.suite, work.results, files[0], _step_summary(), baseline, files[1])
        echo(text)
        codes.append(code)
    raise typer.Exit(worst(codes, CHECK_ORDER))


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The results folder to compare with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The results folder to judge.")],
    junit: Junit = None,
) -> None:
    """Test B against A, image by image. Exit code 0: same or better, 1: significantly worse, 2: not comparable."""
    from epsbench.harness.report.gates.compare import compare as compare_results

    code, text = compare_results(a, b, junit, _step_summary())
    echo(text)
    raise typer.Exit(code)


def _step_summary() -> Path | None:
    """The file whose Markdown GitHub Actions shows on a job's summary page; None elsewhere."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(path) if path else None
