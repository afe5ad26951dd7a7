"""The command line: one short function for each verb, which imports what it needs, so that ``--help`` stays fast."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epsbench.harness.choices import (
    ENDINGS,
    Compile,
    Executor,
    Format,
    Junit,
    Kind,
    Limit,
    Out,
    Precision,
    PrecisionOption,
    SuiteArgument,
)
from epsbench.harness.errors import InputError
from epsbench.harness.migrations import print_warnings
from epsbench.harness.run.machine.streams import guard_streams

if TYPE_CHECKING:
    from rich.console import Console

    from epsbench.harness.plan.suite import Suite

app = typer.Typer(
    help="Measure how classifiers withstand adversarial examples, and how well VAEs model images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.command()
def run(
    suite: SuiteArgument,
    out: Out = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of data sets; default: EPSBENCH_DATA, else ~/.cache/epsbench."),
    ] = None,
    limit: Limit = None,
    precision: PrecisionOption = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many rows (image, ε, restart) are attacked at a time; default: found by timing.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Such as cpu, cuda or cuda:1.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of trained weights; default: inside the results folder."),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also write profiler traces of each attack loop.")] = False,
    compile_: Annotated[
        Compile,
        typer.Option(
            "--compile", help="Whether to compile or trace networks; auto: where timing says that it is faster."
        ),
    ] = Compile.AUTO,
    executor: Annotated[Executor, typer.Option(help="Where trainings and attacks run.")] = Executor.LOCAL,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Measure some recorded cells again and record nothing. Exit code 0: the same, 1: different.",
        ),
    ] = False,
    sample: Annotated[int, typer.Option(min=1, metavar="N", help="How many cells --verify measures.")] = 3,
) -> None:
    """Measure the cells that have no record. Exit code 0: all measured, 1: a cell failed or is void, 2: cannot run."""
    from epsbench.harness.options import Options
    from epsbench.harness.plan.plan import plan as make_plan
    from epsbench.harness.plan.plan import require_writable

    loaded, results = _load(suite, out, limit, precision)
    options = Options(data, device, precision, batch_size, weights, profile, executor, quiet, compile_)
    if verify:
        from epsbench.harness.run.verify import verify as verify_results

        raise typer.Exit(verify_results(loaded, results, options, sample, _echo))
    made = make_plan(loaded, results)
    if not made.pending and not profile:
        from epsbench.harness.listing import nothing_to_do

        _echo(nothing_to_do(made))
        _echo(_unchanged_report(results))
        raise typer.Exit(1 if made.void else 0)
    require_writable(results)
    from epsbench.harness.run.runner import INTERRUPTED, run_suite

    code = run_suite(loaded, results, options, made.records)
    if code != INTERRUPTED:
        from epsbench.harness.report.build import report as build_report

        _echo(build_report(results, Format.TEXT, None))
    raise typer.Exit(code)


@app.command()
def plan(suite: SuiteArgument, out: Out = None, limit: Limit = None, precision: PrecisionOption = None) -> None:
    """Show what a run would do: jobs, cells, what is recorded already, and the gradients left to take."""
    from epsbench.harness.listing import plan_summary, plan_table
    from epsbench.harness.plan.names.content import check_files
    from epsbench.harness.plan.plan import plan as make_plan

    loaded, results = _load(suite, out, limit, precision)
    made = make_plan(loaded, results)
    check_files(loaded.cells, loaded.base)
    console = _console()
    console.print(plan_table(made))
    console.print(plan_summary(made), highlight=False)


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="One results folder, or several for one common report.")
    ],
    format: Annotated[Format | None, typer.Option(help="Default: by the ending of FILE, else text.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file instead of printing.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder for report.html and report.md; default: the results folder, if there is only one.",
        ),
    ] = None,
) -> None:
    """Report on one results folder or several: print leaderboard and tables, write report.html and report.md."""
    from epsbench.harness.report.build import report as build_report

    wanted = format or (ENDINGS.get(output.suffix, Format.TEXT) if output else Format.TEXT)
    text = build_report(results, wanted, output, out)
    _echo(f"wrote {output}" if output else text)


@app.command()
def check(
    suite: SuiteArgument,
    out: Out = None,
    limit: Limit = None,
    precision: PrecisionOption = None,
    junit: Junit = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The results folder that costs can be relative to.")
    ] = None,
) -> None:
    """Compare records with the suite's bounds. Exit code 0: all hold, 1: one is broken, 2: a cell is not measured."""
    from epsbench.harness.report.gates.check import check_suite

    code, text = check_suite(*_load(suite, out, limit, precision), junit, _step_summary(), baseline)
    _echo(text)
    raise typer.Exit(code)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The results folder to compare with.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The results folder to judge.")],
    junit: Junit = None,
) -> None:
    """Test B against A, image by image. Exit code 0: same or better, 1: significantly worse, 2: not comparable."""
    from epsbench.harness.report.gates.compare import compare as compare_results

    code, text = compare_results(a, b, junit, _step_summary())
    _echo(text)
    raise typer.Exit(code)


@app.command()
def audit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, named as in a suite.")],
    data: Annotated[str, typer.Option(metavar="NAME", help="The data set that it classifies.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of weights; default: the model as it is built.")
    ] = None,
    precision: PrecisionOption = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Such as cpu, cuda or cuda:1.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of data sets, as --data of run.")
    ] = None,
) -> None:
    """Audit a model before measuring it. Exit code 0: no finding voids its numbers, 1: one does, 2: cannot run."""
    from epsbench.harness.run.audits.alone import audit_alone

    wanted = precision or Precision.AUTO
    code, text = audit_alone(model, data, weights=weights, precision=wanted.value, device=device, data_root=data_dir)
    _echo(text)
    raise typer.Exit(code)


@app.command("list")
def list_(kind: Annotated[Kind | None, typer.Argument(help="List only these.")] = None) -> None:
    """List what a suite can name, with parameters and defaults: attacks, defenses, models, data sets, suites."""
    from epsbench.harness.listing import LISTS

    console = _console()
    for name in [kind] if kind else list(Kind):
        console.print(LISTS[name]())


@app.command()
def schema() -> None:
    """Print the JSON Schema of suite files."""
    from epsbench.harness.plan.suite import schema_text

    _echo(schema_text(), end="")


NO_MEMORY = ("failed to map segment", "annot allocate memory")
"""What the dynamic linker says where a library does not fit in memory."""


def main() -> None:
    """The console script. An `InputError` is printed without a traceback and ends with exit code 2."""
    guard_streams()
    print_warnings()
    try:
        app()
    except InputError as error:
        for message in error.messages:
            print(f"epsbench: {message}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and not any(sign in str(error) for sign in NO_MEMORY):
            raise
        print(f"epsbench: out of memory{f' ({error})' if str(error) else ''}; finished cells are kept: free memory or "
              "raise its limit (`ulimit -v`), and the same command goes on from there", file=sys.stderr)  # fmt: skip
        sys.exit(2)


def _echo(text: str, end: str = "\n") -> None:
    """Print to standard output in its own encoding. Click's echo would write UTF-8 where that is ASCII."""
    print(text, end=end, flush=True)


def _load(suite: str, out: Path | None, limit: int | None, precision: Precision | None) -> tuple[Suite, Path]:
    from epsbench.harness.plan.suite import load_suite

    loaded = load_suite(suite, limit, precision.value if precision else None)
    return loaded, out or Path("results") / loaded.name


def _step_summary() -> Path | None:
    """The file whose Markdown GitHub Actions shows on a job's summary page; None elsewhere."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(path) if path else None


def _unchanged_report(results: Path) -> str:
    """The report as text when nothing was added. report.html is not written again, which would take seconds."""
    from epsbench.harness.report.build import BESIDE, FORMATS, report
    from epsbench.harness.report.content import Content
    from epsbench.harness.report.results.loading import load_results

    if not all((results / name).is_file() for name in BESIDE):
        return report(results, Format.TEXT, None)
    return FORMATS[Format.TEXT](Content(load_results(results)))


def _console() -> Console:
    from rich.console import Console

    # A pipe has no width, and the program that reads it wants whole lines.
    return Console(emoji=False) if sys.stdout.isatty() else Console(width=160, emoji=False)


if __name__ == "__main__":
    main()
