"""What the arguments of the command line may be: the values of its choices, and the arguments that verbs share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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


ENDINGS = {".md": Format.MARKDOWN, ".csv": Format.CSV, ".json": Format.JSON, ".html": Format.HTML}


class Compile(StrEnum):
    """Whether networks are compiled, in training and under attack."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Executor(StrEnum):
    """Where jobs run."""

    LOCAL = "local"
    RAY = "ray"


class Kind(StrEnum):
    """What ``epsbench list`` can list."""

    ATTACKS = "attacks"
    DEFENSES = "defenses"
    MODELS = "models"
    DATASETS = "datasets"
    SUITES = "suites"


SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a shipped suite.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="The results folder; default: results/<suite name>.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Use at most N examples of each split.")]
PrecisionOption = Annotated[Precision | None, typer.Option(help="Replaces the suite's own precision.")]
Junit = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the verdicts as JUnit XML.")]
