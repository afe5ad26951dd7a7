"""The pieces of ``make gpu``, in their order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.gpu import checks
from tests.gpu.kept import Settings

ROOT = Path(__file__).parents[2]
SHARES = 12  # of the test suite, so that each takes a few minutes
# The reference suites of the ResNet-18, longest first.
SUITES = ("defenses", "augmentation", "random-vs-fgsm", "assignment-settings", "loss-vs-batch", "pretrained",
          "resnet18-defenses", "resnet18-random-vs-fgsm", "resnet18-clean", "resnet18-fine-tuned",
          "resnet18-autoattack", "resnet18-assignment-settings", "resnet18-transfer", "resnet18-augmentation",
          "resnet18-pretrained")  # fmt: skip


class UnfinishedError(Exception):
    """The time is up, and the piece goes on from here when it is started again."""


@dataclass(frozen=True)
class Piece:
    """A part of the work with a name."""

    name: str
    title: str
    run: Callable[[Settings], dict[str, Any]]
    """Returns what it measured; raises where something is not as it should be."""
    cuda: bool = False
    """Whether it needs CUDA."""
    like: str = ""
    """The piece that it differs from in size alone: when all is tiny, that one suffices."""

    def suits(self, settings: Settings) -> bool:
        """Whether it is done on this device, at this size."""
        return (settings.cuda or not self.cuda) and not (settings.tiny and self.like)


def _tests(share: int, settings: Settings) -> dict[str, Any]:
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))
    mine = ["tests/test_files.py"] if settings.tiny else files[share::SHARES]
    done = _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *mine], settings)
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        raise AssertionError("\n".join([*lines[-60:], f"tests failed: {'; '.join(failures)}"]))
    return {"files": len(mine), "outcome": lines[-1]}


def _peers(work: str, images: int, settings: Settings) -> dict[str, Any]:
    """Medians and spread against every library that is installed, on the same device."""
    output = settings.out / "peers" / f"{work}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    tiny = ["--images", "8", "--rounds", "1", "--batch", "8", "--peers", "torchattacks", "--resnet", "4"]
    size = tiny if settings.tiny else ["--images", str(images), "--resnet", "64"]
    _checked(["-m", "tests.benchmarks.peers", work, *size, "--device", settings.device, "--output", str(output)],
             settings)  # fmt: skip
    return {"table": json.loads(output.read_text(encoding="utf-8"))}


def _autoattack(settings: Settings) -> dict[str, Any]:
    weights = ["--weights", str(settings.out / "weights")]
    size = ["--images", "1000", "--defenses", "none", "pgd-batch"]
    if settings.tiny:
        size = [
            "--images",
            "8",
            "--defenses",
            "none",
            "--parts",
            "apgd-ce",
            "--suite",
            str(checks.tiny_suite(settings)),
        ]
    text = _checked(["-m", "tests.benchmarks.autoattack", *size, *weights, "--device", settings.device], settings)
    return {"table": text}


def _suite(name: str, settings: Settings) -> dict[str, Any]:
    out = settings.out / "suites" / name
    tiny = ["--limit", "60", "--set", "robustness.training.epochs=1"] if settings.tiny else []
    command = ["-m", "epsbench", "run", str(checks.tiny_suite(settings)) if settings.tiny else name, *tiny,
               "--out", str(out), "--weights-folder", str(settings.out / "weights"), "--device", settings.device,
               "--time-limit", f"{max(5, int(settings.seconds - 20))}s", "--quiet"]  # fmt: skip
    done = _run([sys.executable, *command], settings)
    if done.returncode == 3:
        raise UnfinishedError(done.stderr.strip().splitlines()[-1])
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (out / "cells").glob("*.json")]
    failed = [record["failure"]["message"] for record in records if record["status"] == "failed"]
    if failed or not records:
        raise AssertionError(f"{len(failed)} of {len(records)} cells failed: {failed[:1]} {done.stderr[-2000:]}")
    return {"cells": len(records), "void": sum(record["status"] == "void" for record in records)}


def _checked(arguments: list[str], settings: Settings) -> str:
    done = _run([sys.executable, *arguments], settings)
    if done.returncode:
        raise AssertionError(f"{' '.join(arguments)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def _run(command: list[str], settings: Settings) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EPSBENCH_TEST_DEVICE": settings.device}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


_ALL = [
    *(Piece(f"tests-{n + 1:02}", f"share {n + 1} of {SHARES} of the test suite", partial(_tests, n),
            like="tests-01" if n else "") for n in range(SHARES)),
    Piece("verdicts", "verdicts against those of a CPU, on the same weights", checks.verdicts),
    Piece("forms", "bf16, programs, compilation and graphs against the plain form", checks.forms),
    Piece("out-of-memory", "memory runs out at each stage", checks.out_of_memory),
    Piece("memory-limit", "a real limit of the device's memory", checks.memory_limit, cuda=True),
    Piece("polling", "how often the host waits for the device", checks.polling, cuda=True),
    Piece("memory-growth", "memory over 100 attacks", checks.memory_growth),
    Piece("streaming", "the share of a training that data takes, without a DataLoader", checks.streaming),
    Piece("devices", "an attack that all devices share", checks.devices),
    Piece("peers-one-eps", "PGD-40 at one ε against other libraries", partial(_peers, "one-eps", 2048),
          like="peers-fgsm"),
    Piece("peers-curve", "PGD-40 at eight ε against other libraries", partial(_peers, "curve", 1024),
          like="peers-fgsm"),
    Piece("peers-fgsm", "FGSM at eight ε against other libraries", partial(_peers, "fgsm", 8192)),
    Piece("floor", "the share of the floor", partial(_peers, "floor", 2048)),
    Piece("autoattack", "AutoAttack and its parts against torchattacks", _autoattack),
    *(Piece(f"suite-{name}", f"the reference suite {name}", partial(_suite, name),
            like="" if name == SUITES[0] else f"suite-{SUITES[0]}") for name in SUITES),
]  # fmt: skip
PIECES = {piece.name: piece for piece in _ALL}
