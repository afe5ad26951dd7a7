"""The process of `epsbench.harness.run.audits.fresh_process`: ``python -m ... FOLDER`` builds, waits, answers, ends.

It reads ``recipe`` in the folder at once. A line on its standard input says that ``images`` are there; without one the
run has ended, and so does this process.
"""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor, nn

from epsbench.harness.plan.names import registry
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.audits.calls import in_thread
from epsbench.harness.run.audits.fresh_process import Recipe
from epsbench.harness.run.machine.environment import arithmetic
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.weights import load_weights, weights_path

BATCH = 32  # images at a time


def main(folder: Path, asked: TextIO) -> None:
    recipe: Recipe = pickle.loads((folder / "recipe").read_bytes())
    device = torch.device(recipe.device)
    judge = Judge(_built(recipe).to(device).eval(), device)
    if not asked.readline():
        shutil.rmtree(folder, ignore_errors=True)  # nobody else will
        return
    images: dict[str, Tensor] = torch.load(folder / "images")
    with arithmetic("float32"):
        torch.save({name: _logits(judge, x.to(device)) for name, x in images.items()}, folder / "logits")


def _built(recipe: Recipe) -> nn.Module:
    architecture = registry.make("model", recipe.model, recipe.base)
    network: nn.Module = seeded(lambda: architecture.build(recipe.shape), recipe.seed)
    if recipe.kept is not None and load_weights(*recipe.kept, network) is None:
        raise FileNotFoundError(f"{weights_path(*recipe.kept)} is no longer there")
    return network


def _logits(judge: Judge, x: Tensor) -> Tensor:
    ask = in_thread(judge.network)
    with torch.autocast(judge.device.type, enabled=False):
        return in_chunks(lambda rows: ask(x[rows]), len(x), BATCH).cpu()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin)
