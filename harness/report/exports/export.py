"""`epsbench export`: records in the formats of other tools, from records alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.report.results.loading import Results, load_results


@dataclass(frozen=True)
class Target:
    """A tool that records are exported to."""

    module: str
    """The module here with its ``write(results, out)``, which returns a sentence about what it wrote."""
    out: str
    """The file or folder that is written without ``--to``."""
    package: str = ""
    """The package that is needed, by the name that it is imported by; empty where none is."""


TARGETS: dict[str, Target] = {
    "robustbench": Target("robustbench", "model_info"),
    "wandb": Target("weights_and_biases", ".", "wandb"),
    "mlflow": Target("mlflow_store", "mlruns", "mlflow"),
    "tensorboard": Target("tensorboard_hparams", "hparams"),
    "sarif": Target("sarif", "epsbench.sarif"),
    "csv": Target("csv_file", "epsbench.csv"),
}
"""Every target by its name. The extra that installs a package has the target's name."""


def export(target: str, folders: Sequence[Path], out: Path | None = None) -> str:
    """Write the current records of results folders for a tool; returns a sentence about what was written.

    Raises `InputError` for an unknown target, for a package that is not installed, for bad records, and where nothing
    can be written.
    """
    if target not in TARGETS:
        raise InputError(f"unknown target {target!r}{did_you_mean(target, TARGETS)}")
    chosen = TARGETS[target]
    results = load_results(*folders)
    if chosen.package:
        _require(chosen.package, target)
    write: Callable[[Results, Path], str] = importlib.import_module(
        f"epsbench.harness.report.exports.{chosen.module}"
    ).write
    place = out or Path(chosen.out)
    try:
        return write(results, place)
    except OSError as error:
        raise InputError(f"{place}: cannot be written ({error.strerror or error}); choose another --to") from error


def _require(package: str, extra: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"{extra}: needs the package {package} ({error}); install it with `pip install 'epsbench[{extra}]'`"
        ) from error
