"""Where the time of evaluating a VAE goes: processor seconds of each part, for the settings of a suite.

    EPSBENCH_DATA=... python -m tests.benchmarks.vae_evaluation --suite vae-mnist-best --features results/.weights

The weights are random, which costs the same, unless `--model` names a folder of results with weights. The ELBO, the
latent space and the samples are measured in full, and the other parts on some of the images: their seconds are scaled
to the number that the suite asks for. Seconds are those of the processor on one thread, and a run on several cores
takes at least their number divided by that of the cores. ``--features`` keeps the network whose features compare
samples. It is trained first where it is missing, outside the time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from tabulate import tabulate

import epsbench
from epsbench.harness.plan.cell import GenerationCell
from epsbench.harness.plan.names import registry
from epsbench.harness.plan.suite import load_suite
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.data.load import load_data
from epsbench.harness.run.generative import evaluate as module
from epsbench.harness.run.generative.evaluate import Subject, evaluate
from epsbench.harness.run.generative.features import feature_network
from epsbench.harness.run.machine.memory import keep_freed
from epsbench.harness.run.progress import Silent
from epsbench.harness.run.training.seeding import seeded
from epsbench.models.vae import VAENetwork

DEVICE = torch.device("cpu")
LATENTS = 10_000  # decoded for a bound
REFINED = 256  # images; the first 128 are decoded 8 times more than others
PRIOR = 3355  # images that have their likelihood under 10,000 draws at a time
DRAWS = 10  # of the gradient estimators


Settings = Mapping[str, int]


def parts(evaluation: Settings, n: int) -> list[tuple[str, str, Settings, int, float]]:
    """Parts that are measured on some of n images: name, that in the record, settings that are not 0, images, scale."""
    rows: list[tuple[str, str, Settings, int, float]] = []
    if samples := evaluation["importance_samples"]:
        some = max(1, LATENTS // samples)
        # Of images with the long bound, its first samples give this one.
        left = n - min(n, evaluation["long_images"]) * (samples <= evaluation["long_importance_samples"])
        rows.append(("importance-weighted bound", "bounds", {"importance_samples": samples}, some, left / some))
    if samples := evaluation["long_importance_samples"]:
        some = max(1, LATENTS // samples)
        long = {"long_importance_samples": samples, "long_images": some}
        rows.append(("long bound", "bounds", long, some, min(n, evaluation["long_images"]) / some))
    if draws := evaluation["prior_samples"]:
        rows.append(("bound from the prior", "bounds", {"prior_samples": draws}, PRIOR, n / PRIOR))
    if steps := evaluation["refinement_steps"]:
        refined = {"refinement_steps": steps, "refined_images": REFINED}
        rows.append(
            ("refined posteriors", "refined posteriors", refined, REFINED, evaluation["refined_images"] / REFINED)
        )
    if draws := evaluation["gradient_samples"]:
        rows.append(("gradient estimators", "gradient estimators", {"gradient_samples": DRAWS}, 128, draws / DRAWS))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="vae-mnist")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--some", action="store_true", help="only the parts that are measured on some of the images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed(DEVICE)
    cell = next(each for each in load_suite(options.suite).cells if isinstance(each, GenerationCell))
    data = load_data(cell.data, Path(os.environ["EPSBENCH_DATA"]), DEVICE)
    built = registry.make("model", cell.model, Path())
    vae: VAENetwork = seeded(lambda: built.build(data.description, cell.z_dim), cell.seed).eval()
    if options.model:
        vae = epsbench.load_model(options.model, z_dim=cell.z_dim)
    feature_network(data, options.features)
    evaluation = {"refinement_steps": 0, "refined_images": 0} | dict(cell.evaluation)
    module.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[attr-defined]

    def measure(images: Data, **given: int) -> Mapping[str, float]:
        wanted = dict.fromkeys(evaluation, 0) | given
        return evaluate(Subject(vae, images, wanted, 0), options.features, Silent(), "").evaluation["seconds"]

    rows: list[tuple[str, float]] = []
    if not options.some:
        rows += measure(data, generated=evaluation["generated"]).items()
    few = replace(data, train=data.train[slice(0, 100)], validation=data.validation[slice(0, 100)])
    for name, recorded, given, images, scale in parts(evaluation, len(data.test)):
        seconds = measure(replace(few, test=data.test[slice(0, images)]), **given)
        rows.append((name, seconds[recorded] * scale))
    rows.append(("together", sum(seconds for _, seconds in rows)))
    print(f"suite {options.suite}, one thread, torch {torch.__version__}")
    print(tabulate(rows, headers=("part", "processor seconds"), floatfmt=".1f", tablefmt="github"))


if __name__ == "__main__":
    main()
