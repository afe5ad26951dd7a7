"""The verbs that measure: a suite, a model as it is, and its audits alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epsbench.harness import completion
from epsbench.harness.choices import (
    NORM_NAMES,
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
    Key,
    Limit,
    Mean,
    Out,
    Precision,
    PrecisionOption,
    Quiet,
    SaveImages,
    Std,
    SuitesArgument,
    Threads,
    TimeLimit,
    Weights,
    WeightsFolder,
    kept_images,
)
from epsbench.harness.report_verbs import echo


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
    weights_folder: WeightsFolder = None,
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

    Exit code 0: all measured, 1: a cell failed or is void, 2: cannot run or report, 3: the time limit ended it.
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
            help="Such as pgd:steps=40,restarts=5,random_start=true; may be repeated. Default: autoattack.",
            autocompletion=completion.attacks,
        ),
    ] = None,
    norm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(NORM_NAMES)}, or your own: mine.py:MyNorm; may be repeated. Default: linf.",
            autocompletion=completion.norms,
        ),
    ] = None,
    eps: Annotated[
        list[str] | None, typer.Option(metavar="ε", help="In pixel units; may be repeated. Default: 8/255.")
    ] = None,
    weights: Weights = None,
    key: Key = "",
    mean: Mean = "",
    std: Std = "",
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

    Exit code 0: measured, 1: failed or void, 2: cannot run or report, 3: the time limit ended it.
    """
    from epsbench.harness.evaluate_verb import suite_of
    from epsbench.harness.measuring import measure, require_folder
    from epsbench.harness.options import Options

    require_folder(data_folder)

    suite = suite_of(
        model, data, attack or [], norm or [], eps or [], weights=weights, key=key, mean=mean,
        std=std, score=score, limit=limit, precision=precision and precision.value, seed=seed,
    )  # fmt: skip
    options = Options(
        data_folder, device, precision, batch_size, quiet=quiet, keep_images=kept_images(keep_images, save_images),
        time_limit=time_limit, threads=threads, devices=devices,
    )  # fmt: skip
    raise typer.Exit(measure(suite, out, options, save_images, echo))


def audit(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model, named as in a suite.", autocompletion=completion.models),
    ],
    data: DataName,
    weights: Weights = None,
    key: Key = "",
    mean: Mean = "",
    std: Std = "",
    precision: PrecisionOption = None,
    device: Device = None,
    data_folder: DataDir = None,
    data_memory: DataMemory = None,
) -> None:
    """Audit a model before measuring it. Exit code 0: no finding voids its numbers, 1: one does, 2: cannot run."""
    from epsbench.harness.evaluate_verb import with_weights
    from epsbench.harness.run.audits.alone import audit_alone

    wanted = precision or Precision.AUTO
    entry = with_weights(model, weights, key, mean, std)
    code, text = audit_alone(entry, data, precision=wanted.value, device=device, data_root=data_folder)
    echo(text)
    raise typer.Exit(code)
