"""Measures a given generative model as a run does."""

from __future__ import annotations

from pathlib import Path

import torch

from epsbench.harness.plan.cell import GenerationCell
from epsbench.harness.plan.named import Named
from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative import job as generation
from epsbench.models.vae import VAENetwork

EVALUATION = {
    "importance_samples": 4, "long_importance_samples": 8, "long_images": 50, "prior_samples": 64, "generated": 0,
    "gradient_samples": 0, "refinement_steps": 2, "refined_images": 32,
}  # fmt: skip
TRAINING = {"seconds": 1.0, "images_per_second": 1.0, "curves": {}}


def measure(vae: VAENetwork, data: Data, folder: Path, monkeypatch, **evaluation: int) -> Record:
    """The record of a model, with its weights as they are."""
    cell = GenerationCell(
        data="digits", model=Named("vae", (("filters", 4), ("levels", vae.levels))), z_dim=vae.z_dim, beta=1.0,
        training=(("batch_size", 32), ("epochs", 2), ("learning_rate", 1e-3)), seed=0, limit=300,
        evaluation=tuple((EVALUATION | evaluation).items()), precision="float32", versions=(("model", "v1"),),
    )  # fmt: skip
    context = Context(results=folder, weights=folder / "weights", device=torch.device("cpu"), suite="test", base=folder,
                      boards=False)  # fmt: skip
    context._data["digits", 300] = data
    monkeypatch.setattr(generation, "trained", lambda *_: (vae, dict(TRAINING), {}))
    (record,) = generation.run_generation_job(Job(cell.weights_key, "generation", (cell,)), context)
    return record


def codes(record: Record) -> set[str]:
    return {finding.code for finding in record.findings}
