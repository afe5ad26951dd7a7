"""The verbs that show what there is: a suite, what a run of it would do, what a suite can name, the schema."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from epsbench.harness.choices import (
    Changes,
    Kind,
    Limit,
    Out,
    PrecisionOption,
    SuiteArgument,
    SuitesArgument,
    WeightsFolder,
)
from epsbench.harness.report_verbs import echo

if TYPE_CHECKING:
    from rich.console import Console


def show(suite: SuiteArgument, change: Changes = None) -> None:
    """Print a suite file, to begin one of your own with."""
    from epsbench.harness.plan.suite import suite_text

    echo(suite_text(suite, change or ()), end="")


def plan(
    suites: SuitesArgument,
    out: Out = None,
    change: Changes = None,
    limit: Limit = None,
    precision: PrecisionOption = None,
    weights_folder: WeightsFolder = None,
) -> None:
    """Show what a run would do: jobs, cells, what is recorded already, the gradients left to take, and the time."""
    from epsbench.harness.listing import estimate_text, plan_summary, plan_table, preparation_lines
    from epsbench.harness.plan.estimate import Estimator
    from epsbench.harness.plan.names.content import check_files
    from epsbench.harness.plan.plan import plan as make_plan
    from epsbench.harness.several import load_suites

    console = _console()
    for work in load_suites(suites, out, limit, precision and precision.value, change or (), to_show=True):
        made = make_plan(work.suite, work.results)
        if not work.known:
            check_files(work.suite.cells, work.suite.base)
        estimator = Estimator(made, weights_folder)
        console.print(plan_table(made, estimator))
        console.print(plan_summary(made), highlight=False)
        for text in [*preparation_lines(made), estimate_text(made, estimator)]:
            if text:
                console.print(text, highlight=False, markup=False, soft_wrap=True)


def list_(kind: Annotated[Kind | None, typer.Argument(help="List only these.")] = None) -> None:
    """List what a suite can name, with parameters and defaults: attacks, defenses, models, data sets, suites."""
    from epsbench.harness.listing import LISTS

    console = _console()
    for name in [kind] if kind else list(Kind):
        console.print(LISTS[name]())


def schema() -> None:
    """Print the JSON Schema of suite files."""
    from epsbench.harness.plan.suite import schema_text

    echo(schema_text(), end="")


def _console() -> Console:
    from rich.console import Console

    # A pipe has no width, and the program that reads it wants whole lines.
    return Console(emoji=False) if sys.stdout.isatty() else Console(width=160, emoji=False)
