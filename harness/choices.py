"""What the arguments of the command line may be: the values of its choices, and the arguments that verbs share."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from epsbench.harness import completion
from epsbench.harness.durations import seconds_of
from epsbench.harness.options import ALL


class Precision(StrEnum):
    """The number format that networks compute in."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    FLOAT32 = "float32"


class Format(StrEnum):
    """The format of a report."""

    TEXT = "text"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    HTML = "html"
    LATEX = "latex"


ENDINGS = {".md": Format.MARKDOWN, ".csv": Format.CSV, ".json": Format.JSON, ".html": Format.HTML,
           ".tex": Format.LATEX}  # fmt: skip


class Target(StrEnum):
    """The tools that records are exported to."""

    ROBUSTBENCH = "robustbench"
    WANDB = "wandb"
    MLFLOW = "mlflow"
    TENSORBOARD = "tensorboard"
    SARIF = "sarif"
    CSV = "csv"


class Compile(StrEnum):
    """Whether networks are compiled, in training and under attack."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Executor(StrEnum):
    """Where jobs run."""

    LOCAL = "local"
    RAY = "ray"


NORM_NAMES = ("linf", "l2", "l1", "l0", "l0-pixels")
"""The names of `epsbench.attacks.norms.NORMS`, for help texts: to import them takes as long as all of ``--help``."""


class Kind(StrEnum):
    """What ``epsbench list`` can list."""

    ATTACKS = "attacks"
    DEFENSES = "defenses"
    MODELS = "models"
    DATASETS = "datasets"
    SUITES = "suites"


def _duration(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _data_memory(size: str | None) -> str | None:
    """Let this process, and those that it starts, know how much memory data may take."""
    if size is not None:
        from epsbench.harness.plan.data.budget import VARIABLE, size_of

        try:
            size_of(size)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        os.environ[VARIABLE] = size
    return size


SuiteArgument = Annotated[
    str,
    typer.Argument(
        metavar="SUITE", help="A suite file, or the name of a shipped suite.", autocompletion=completion.suites
    ),
]
SuitesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SUITE...",
        help="A suite file, or the name of a shipped suite; or several.",
        autocompletion=completion.suites,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the suite, such as robustness.training.epochs=3; may be repeated.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The results folder; default: results/<suite name>. Of several suites, each has its own inside it.",
    ),
]
WeightsFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of trained weights; default: inside the results folder."),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Use at most N examples of each split.")]
PrecisionOption = Annotated[Precision | None, typer.Option(help="Replaces the suite's own precision.")]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The weights of MODEL, a checkpoint or safetensors.")
]
Key = Annotated[str, typer.Option(metavar="KEY", help="Which weights of the file, such as ema.")]
Mean = Annotated[str, typer.Option(metavar="M,M,M", help="What images are normalised with before MODEL.")]
Std = Annotated[str, typer.Option(metavar="S,S,S", help="Likewise.")]
SaveImages = Annotated[
    Path | None,
    typer.Option(metavar="FILE.npz", help="Also write the adversarial images, with labels, predictions and ε."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-folder",
        metavar="DIR",
        help="Where the data sets that come along are; default: EPSBENCH_DATA, else ~/.cache/epsbench.",
    ),
]
DataMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        callback=_data_memory,
        help="Data of your own whose images take more, such as 500M or 8G, is streamed from the disk; 0: all of it. "
        "Default: EPSBENCH_DATA_MEMORY, else a quarter of the machine's memory.",
    ),
]
DataName = Annotated[
    str,
    typer.Option(
        metavar="DATA", help="A data set, test.npz, a folder, or mine.py:Data.", autocompletion=completion.data
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="How many rows (image, ε, restart) are attacked at a time; default: found by timing."
    ),
]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="Such as cpu, cuda or cuda:1.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        parser=_duration,
        metavar="TIME",
        help="Stop after 90s, 5m or 1h30m, the cheapest cells first. Exit code 3: something is missing; the same "
        "command goes on from there.",
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="How many threads a CPU computes with; default: by trying.")
]
Devices = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Split each attack over N GPUs of this machine; on a CPU, over N processes that share its cores. Default: "
        "1 GPU; on a CPU, as timing says.",
    ),
]
KeepImages = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Keep the adversarial images of the first N test images, in RESULTS/images."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Junit = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the verdicts as JUnit XML.")]


def _examples(*lines: str) -> str:
    """Commands under the help of a verb, each on a line of its own."""
    return "\n\n".join(["Examples:", *lines])


EXAMPLES = {
    "run": _examples(
        "epsbench run mnist --limit 500",
        "epsbench run mine.toml --out results/mine --device cuda",
        "epsbench run mnist cost --out results/both --time-limit 30m",
        "epsbench run vae-mnist --set generation.training.epochs=3",
    ),
    "evaluate": _examples(
        "epsbench evaluate models/resnet.py:ResNet18 --weights best.pt --data test.npz --eps 8/255",
        "epsbench evaluate victim.py:load --data cifar10 --attack pgd:steps=40,random_start=true --norm l2 --eps 0.5",
        "epsbench evaluate victim.py:load --data test.npz --score theirs.npz --eps 8/255",
    ),
    "show": _examples(
        "epsbench show mnist > mine.toml", "epsbench show mnist --set robustness.matrix.eps=[0.1,0.2] > mine.toml"
    ),
    "plan": _examples("epsbench plan mnist", "epsbench plan mine.toml --out results/mine"),
    "report": _examples(
        "epsbench report results/mnist",
        "epsbench report results/a results/b --output both.csv",
        "epsbench report results/mnist --format latex --output tables.tex --figures figures",
    ),
    "publish": _examples(
        "epsbench publish results/mnist results/cost --out site",
        "epsbench publish results/mnist --out site --watch",
    ),
    "export": _examples(
        "epsbench export tensorboard results/mnist --to hparams",
        "epsbench export sarif results/a results/b --to findings.sarif",
    ),
    "describe": _examples(
        "epsbench describe 063739ea --out results/mnist",
        "epsbench describe results/mnist/cells/063739ea071e34aa.json --latex --bib references.bib",
    ),
    "check": _examples("epsbench check mine.toml", "epsbench check mine.toml --junit check.xml --badge gate.svg"),
    "compare": _examples("epsbench compare before after", "epsbench compare before after --junit compare.xml"),
    "audit": _examples("epsbench audit victim.py:load --data cifar10", "epsbench audit smallcnn --data test.npz"),
    "list": _examples("epsbench list", "epsbench list attacks"),
    "schema": _examples("epsbench schema", "epsbench schema > suite.schema.json"),
}
"""What the help of each verb shows below its options."""


def kept_images(number: int | None, save: Path | None) -> int:
    """Of how many test images the adversarial ones are kept: the given number, else all where they are to be saved."""
    return number if number is not None else ALL if save is not None else 0


def show_version(wanted: bool) -> None:
    """Print the version and exit, where that is wanted."""
    if wanted:
        from epsbench import __version__

        print(f"epsbench {__version__}")
        raise typer.Exit
