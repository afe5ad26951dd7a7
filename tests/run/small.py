"""Small suites and a small recipe for the digits, and what several tests look at after a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from epsbench.harness.options import Options
from epsbench.harness.plan.suite import Suite, load_suite
from epsbench.harness.records import Record, read_records
from epsbench.harness.run.runner import run_suite

SMALL = """
[robustness]
data = "digits"
[robustness.training]
epochs = 2
[robustness.matrix]
model = "smallcnn"
attack = ["noise", "fgsm", { name = "pgd", steps = 3, random_start = true }]
eps = [0.05, 0.2]
"""
TINY = """
[robustness]
data = "digits"
[robustness.training]
epochs = 6
[robustness.matrix]
model = "smallcnn"
attack = ["noise", "fgsm"]
eps = [0.05, 0.2]
"""
GENERATION = """
[generation]
data = "digits"
[generation.training]
epochs = 1
[generation.evaluation]
importance_samples = 0
prior_samples = 0
generated = 20
gradient_samples = 0
[generation.matrix]
model = { name = "vae", filters = 2, levels = 4 }
z_dim = 2
"""
DEVICE = os.environ.get("EPSBENCH_TEST_DEVICE", "cpu")
"""`make gpu` runs the tests on a GPU, too."""
WITHIN = 300  # seconds that a busy machine may take for what takes ten on a quiet one
QUIET = Options(quiet=True, device=DEVICE)
RECIPE = {
    "epochs": 2, "batch_size": 64, "optimizer": "adam", "learning_rate": 5e-3, "weight_decay": 0.0, "momentum": 0.9,
    "schedule": "one-cycle", "step_epochs": 1, "gamma": 0.1,
}  # fmt: skip
"""A training of a classifier in a second."""


def suite_of(folder: Path, text: str = SMALL) -> Suite:
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return load_suite(str(path), limit=200)


def run(suite: Suite, results: Path, **options: object) -> tuple[int, dict[str, Record]]:
    code = run_suite(suite, results, Options(quiet=True, device=DEVICE, **options))
    return code, {record.id: record for record in read_records(results)}


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the condition is true, at most so long as a busy machine needs."""
    end = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def verdicts(results: Path) -> dict[str, object]:
    return {record.id: record.verdicts for record in read_records(results)}


def flat(network: nn.Module) -> torch.Tensor:
    """Everything in the network's state dict as one vector."""
    return torch.cat([value.flatten().float() for value in network.state_dict().values()])
