"""The command line: one short function for each verb, which imports what it needs, so that ``--help`` stays fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epsbench.harness import completion
from epsbench.harness.choices import (
    EXAMPLES,
    BatchSize,
    Changes,
    Compile,
    DataDir,
    DataMemory,
    DataName,
    Device,
    Devices,
    Executor,
    KeepImages,
    Kind,
    Limit,
    NormName,
    Out,
    Precision,
    PrecisionOption,
    Quiet,
    SaveImages,
    SuiteArgument,
    SuitesArgument,
    Threads,
    TimeLimit,
    kept_images,
    show_version,
)
from epsbench.harness.errors import InputError
from epsbench.harness.gate_verbs import check, compare
from epsbench.harness.migrations import print_warnings
from epsbench.harness.old_options import renamed
from epsbench.harness.report_verbs import describe, echo, export, publish, report
from epsbench.harness.run.machine.streams import guard_streams
from epsbench.harness.waiting import wait_passively

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Measure how classifiers withstand adversarial examples, and how well VAEs model images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog=EXAMPLES["run"])
def run(
    suites: SuitesArgument,
    out: Out = None,
    change: Changes = None,
    time_limit: TimeLimit = None,
    data_folder: DataDir = None,
    data_memory: DataMemory = None,
    limit: Limit = None,
    precision: PrecisionOption = None,
    batch_size: BatchSize = None,
    device: Device = None,
    devices: Devices = None,
    threads: Threads = None,
    weights_folder: Annotated[
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
    quiet: Quiet = False,
    save_images: SaveImages = None,
    keep_images: KeepImages = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Measure some recorded cells again and record nothing. Exit code 0: the same, 1: different.",
        ),
    ] = False,
    sample: Annotated[int, typer.Option(min=1, metavar="N", help="How many cells --verify measures.")] = 3,
) -> None:
    """Measure the cells that have no record.

    Exit code 0: all measured, 1: a cell failed or is void, 2: cannot run, 3: the time limit ended it.
    """
    from epsbench.harness.measuring import measure, require_folder
    from epsbench.harness.options import Options
    from epsbench.harness.several import load_suites, run_each

    require_folder(data_folder)
    works = load_suites(suites, out, limit, precision and precision.value, change or ())
    options = Options(
        data_folder, device, precision, batch_size, weights_folder, profile, executor, quiet, compile_,
        kept_images(keep_images, save_images), time_limit, threads, devices,
    )  # fmt: skip
    if verify:
        from epsbench.harness.run.verify import verify as verify_results

        raise typer.Exit(max(verify_results(work.suite, work.results, options, sample, echo) for work in works))
    raise typer.Exit(run_each(works, options, save_images, echo, measure))


@app.command(epilog=EXAMPLES["evaluate"])
def evaluate(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="One model or several, named as in a suite.", autocompletion=completion.models
        ),
    ],
    data: DataName,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Such as pgd:steps=40,restarts=5; may be repeated. Default: autoattack.",
            autocompletion=completion.attacks,
        ),
    ] = None,
    norm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(NormName)}, or your own: mine.py:MyNorm; may be repeated. Default: linf.",
            autocompletion=completion.norms,
        ),
    ] = None,
    eps: Annotated[
        list[str] | None, typer.Option(metavar="ε", help="In pixel units; may be repeated. Default: 8/255.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The weights of MODEL, a checkpoint or safetensors.")
    ] = None,
    key: Annotated[str, typer.Option(metavar="KEY", help="Which weights of the file, such as ema.")] = "",
    mean: Annotated[str, typer.Option(metavar="M,M,M", help="What images are normalised with before MODEL.")] = "",
    std: Annotated[str, typer.Option(metavar="S,S,S", help="Likewise.")] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="The results folder.")] = Path("results/evaluate"),
    score: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Judge these adversarial images instead of attacking.")
    ] = None,
    save_images: SaveImages = None,
    limit: Limit = None,
    precision: PrecisionOption = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the attacks' noise.")] = 0,
    time_limit: TimeLimit = None,
    batch_size: BatchSize = None,
    device: Device = None,
    devices: Devices = None,
    threads: Threads = None,
    data_folder: DataDir = None,
    data_memory: DataMemory = None,
    keep_images: KeepImages = None,
    quiet: Quiet = False,
) -> None:
    """Attack a model as it is: clean and robust accuracy.

    Exit code 0: measured, 1: failed or void, 2: cannot run, 3: the time limit ended it.
    """
    from epsbench.harness.evaluate_verb import suite_of
    from epsbench.harness.measuring import measure, require_folder
    from epsbench.harness.options import Options

    require_folder(data_folder)

    suite = suite_of(
        model, data, attack or [], norm or [], eps or [], weights=weights, key=key, mean=mean,
        std=std, score=score, limit=limit, precision=precision.value if precision else None, seed=seed,
    )  # fmt: skip
    options = Options(
        data_folder, device, precision, batch_size, quiet=quiet, keep_images=kept_images(keep_images, save_images),
        time_limit=time_limit, threads=threads, devices=devices,
    )  # fmt: skip
    raise typer.Exit(measure(suite, out, options, save_images, echo))


@app.command(epilog=EXAMPLES["show"])
def show(suite: SuiteArgument, change: Changes = None) -> None:
    """Print a suite file, to begin one of your own with."""
    from epsbench.harness.plan.suite import suite_text

    echo(suite_text(suite, change or ()), end="")


@app.command(epilog=EXAMPLES["plan"])
def plan(
    suites: SuitesArgument,
    out: Out = None,
    change: Changes = None,
    limit: Limit = None,
    precision: PrecisionOption = None,
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
        estimator = Estimator(made)
        console.print(plan_table(made, estimator))
        console.print(plan_summary(made), highlight=False)
        for text in [*preparation_lines(made), estimate_text(made, estimator)]:
            if text:
                console.print(text, highlight=False, markup=False, soft_wrap=True)


for verb in (report, publish, export, describe, check, compare):
    app.command(epilog=EXAMPLES[verb.__name__])(verb)


@app.command(epilog=EXAMPLES["audit"])
def audit(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model, named as in a suite.", autocompletion=completion.models),
    ],
    data: DataName,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of weights; default: the model as it is built.")
    ] = None,
    precision: PrecisionOption = None,
    device: Device = None,
    data_folder: DataDir = None,
    data_memory: DataMemory = None,
) -> None:
    """Audit a model before measuring it. Exit code 0: no finding voids its numbers, 1: one does, 2: cannot run."""
    from epsbench.harness.run.audits.alone import audit_alone

    wanted = precision or Precision.AUTO
    code, text = audit_alone(model, data, weights=weights, precision=wanted.value, device=device, data_root=data_folder)
    echo(text)
    raise typer.Exit(code)


@app.command("list", epilog=EXAMPLES["list"])
def list_(kind: Annotated[Kind | None, typer.Argument(help="List only these.")] = None) -> None:
    """List what a suite can name, with parameters and defaults: attacks, defenses, models, data sets, suites."""
    from epsbench.harness.listing import LISTS

    console = _console()
    for name in [kind] if kind else list(Kind):
        console.print(LISTS[name]())


@app.command(epilog=EXAMPLES["schema"])
def schema() -> None:
    """Print the JSON Schema of suite files."""
    from epsbench.harness.plan.suite import schema_text

    echo(schema_text(), end="")


NO_MEMORY = ("failed to map segment", "annot allocate memory")
"""What the dynamic linker says where a library does not fit in memory."""


def main() -> None:
    """The console script. An `InputError` is printed without a traceback and ends with exit code 2."""
    wait_passively()
    guard_streams()
    print_warnings()
    arguments, renames = renamed(sys.argv[1:])
    for line in renames:
        print(f"epsbench: {line}", file=sys.stderr)
    try:
        app(arguments)
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


def _console() -> Console:
    from rich.console import Console

    # A pipe has no width, and the program that reads it wants whole lines.
    return Console(emoji=False) if sys.stdout.isatty() else Console(width=160, emoji=False)


if __name__ == "__main__":
    main()
