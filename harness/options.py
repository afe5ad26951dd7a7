"""Options of a run that do not change what is measured. No torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from epsbench.harness.errors import InputError

INTERRUPTED = 130
"""The exit code of a run that Ctrl-C or SIGTERM stopped: the shell's own."""
ALL = sys.maxsize
"""As a number of images: all of them."""
TIME_IS_UP = 3
"""The exit code of a run that its time limit stopped."""


@dataclass(frozen=True)
class Options:
    """The command line's options of ``epsbench run``; for None the runner chooses.

    Raises `InputError` for a batch size below 1, and for another word than those of ``compile``.
    """

    data_root: Path | None = None
    """The folder of data sets."""
    device: str | None = None
    """Such as ``cpu``, ``cuda`` or ``cuda:1``."""
    precision: str | None = None
    """Replaces the suite's precision: ``auto``, ``bf16``, ``fp16`` or ``float32``."""
    batch_size: int | None = None
    """How many rows (image, ε, restart) are attacked at a time."""
    weights: Path | None = None
    """The folder of trained weights; None: inside the results folder."""
    profile: bool = False
    """Whether to write profiler traces of the attacks, too."""
    executor: str = "local"
    """Where jobs run: ``local`` or ``ray``."""
    quiet: bool = False
    """Whether to show no progress."""
    compile: str = "auto"
    """Whether networks are compiled or traced: ``auto``, ``on`` or ``off``."""
    keep_images: int = 0
    """Of how many test images, the first ones, the adversarial images are kept in ``RESULTS/images``; `ALL`: of all."""
    time_limit: float | None = None
    """Seconds after which the run stops; the cheapest cells are measured first. None: no limit."""
    threads: int | None = None
    """How many threads a CPU computes with; None: by trying."""
    devices: int | None = None
    """How many devices attack one model together: GPUs of this machine, processes that share its cores, or workers of a
    cluster. None: one GPU, or on a CPU as many processes as timing says; on a cluster, those that no other job needs.
    """
    temporary: bool = False
    """Whether the results folder goes with the call: an evaluation in Python that keeps nothing."""
    remember: bool = False
    """Whether what the audits found of a model is taken over from an earlier run of this process."""

    def __post_init__(self) -> None:
        size = self.batch_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise InputError(f"batch_size: must be a whole number from 1 on, not {size!r}")
        if self.compile not in ("auto", "on", "off"):
            raise InputError(f"compile: must be 'auto', 'on' or 'off', not {self.compile!r}")
