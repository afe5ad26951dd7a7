"""The verbs that turn records into something to read: a report, a site, another tool's files, a paragraph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epsbench.harness.choices import ENDINGS, Format, Target
from epsbench.harness.errors import InputError

if TYPE_CHECKING:
    from fractions import Fraction


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
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the figures here, as PDF and as pgfplots data.")
    ] = None,
    at_eps: Annotated[
        str | None,
        typer.Option(
            metavar="EPS,...",
            help="Report at these radii alone, from recorded distances where they were not measured.",
        ),
    ] = None,
) -> None:
    """Report on one results folder or several: print leaderboard and tables, write report.html and report.md."""
    from epsbench.harness.report.build import report as build_report

    wanted = format or (ENDINGS.get(output.suffix, Format.TEXT) if output else Format.TEXT)
    text = build_report(results, wanted, output, out, figures, _radii(at_eps))
    echo(f"wrote {output}" if output else text)


def publish(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="One results folder, or several.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the site.")] = Path("site"),
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and write it again when records change.")] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How often --watch looks.")] = 10.0,
) -> None:
    """Write a site of static pages: leaderboards, a page for every model and attack, history over commits."""
    from epsbench.harness.report.site.build import publish as publish_site
    from epsbench.harness.report.site.build import watch as watch_results

    if not watch:
        files = publish_site(results, out)
        echo(f"{out / 'index.html'}: {len(files)} files")
        return
    try:
        watch_results(results, out, every, echo)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def export(
    target: Annotated[Target, typer.Argument(metavar="TOOL", help="The tool: " + ", ".join(Target) + ".")],
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="One results folder, or several.")],
    to: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The file or folder to write; default: as the tool expects it.")
    ] = None,
) -> None:
    """Write records for another tool. wandb and mlflow need the extra of their name."""
    from epsbench.harness.report.exports.export import export as export_results

    echo(export_results(target.value, results, to))


def describe(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="The file of a record, or the beginning of its id.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The results folder; default: any folder below results.")
    ] = None,
    latex: Annotated[bool, typer.Option("--latex", help="Write the paragraph for LaTeX, with \\cite.")] = False,
    bib: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the BibTeX entries to this file.")] = None,
) -> None:
    """Describe a measured cell for a paper: a paragraph of methods, and BibTeX of everything that it uses."""
    from epsbench.harness.report.exports.citing.describe import describe as describe_cell

    echo(describe_cell(cell, out, latex=latex, bib=bib))


def _radii(given: str | None) -> list[Fraction]:
    """The ε of a list such as ``0.1,8/255``. Raises `InputError` for what is none."""
    from epsbench.harness.plan.epsilon import any_epsilon

    try:
        return [any_epsilon(each) for each in given.split(",")] if given is not None else []
    except ValueError as error:
        raise InputError(f"--at-eps: {error}") from error


def echo(text: str, end: str = "\n") -> None:
    """Print to standard output in its own encoding. Click's echo would write UTF-8 where that is ASCII."""
    print(text, end=end, flush=True)
