"""One generative model: from data to its record."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.errors import InputError
from harness.records import Metric, Record, keep, write_pictures
from harness.run.context import Context
from harness.run.data import Data, Examples
from harness.run.memory import peak_bytes, reset_peak
from harness.run.noise import KeyedNoise
from harness.run.training import seeded
from harness.run.vae_training import evaluate_vae, train_vae
from harness.run.weights import load_weights, save_weights
from harness.spec import names
from harness.spec.cell import GenerationCell
from harness.spec.plan import Job
from harness.statistics import mean_interval
from models.vae import VAENetwork

SAMPLES = 64
RECONSTRUCTIONS = 8
MANIFOLD_SIDE = 20

Pictures = dict[str, np.ndarray]


def run_generation_job(job: Job, context: Context) -> Iterator[Record]:
    """The record of each of a job's cells: the bound on train, validation and test, curves and pictures.

    The reported bounds are measured in float32 by the final model, whatever precision it was trained in.
    """
    cells = [cell for cell in job.cells if isinstance(cell, GenerationCell)]
    first = cells[0]
    data = context.data(first.data, first.limit)
    started = context.clock()
    reset_peak(context.device)
    vae, training, pictures = trained(first, data, context)
    curves = training.pop("curves")
    begun = time.perf_counter()
    metrics = _metrics(vae, data, first.seed)
    seconds = time.perf_counter() - begun
    for cell in cells:
        write_pictures(context.results, cell.id, pictures)
        yield Record(
            id=cell.id,
            status="ok",
            suite=context.suite,
            cell=cell.canonical(),
            code=cell.code,
            metrics=metrics,
            cost={
                "training_seconds": training["seconds"],
                "training_images_per_second": training["images_per_second"],
                "seconds": seconds,
                "peak_bytes": peak_bytes(context.device),
                "precision": context.precision(cell.precision),
                "device": context.environment.get("device", {}).get("name", context.device.type),
            },
            training=training,
            curves=curves,
            pictures=True,
            environment=context.environment,
            started=started,
            finished=context.clock(),
        )


def trained(cell: GenerationCell, data: Data, context: Context) -> tuple[VAENetwork, dict[str, Any], Pictures]:
    """The cell's VAE with its trained weights, what training cost, and the pictures taken on the way.

    All three come from the cache when they are there.
    """
    model = names.make("model", cell.model, context.base)
    vae: VAENetwork = seeded(lambda: model.build(data.description, cell.z_dim), cell.seed).to(context.device)
    kept = context.weights / f"{cell.weights_key}.npz"
    cached = load_weights(context.weights, cell.weights_key, vae) if kept.is_file() else None
    if cached is not None:
        return vae.eval(), cached | {"cached": True}, _read(kept)

    recipe = dict(cell.training)
    pictures: Pictures = {}
    title = f"training {cell.label()}"
    with context.progress.task(title, recipe["epochs"]) as task, closing(context.board(cell.weights_key)) as board:

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                board.add_scalar(f"training/{name}", value, epoch)
            task.advance(1, **values)

        def on_pictures(epoch: int) -> None:
            pictures[f"samples_epoch_{epoch:04d}"] = samples(vae, cell.seed)

        begun = time.perf_counter()
        curves = train_vae(
            vae,
            data,
            recipe,
            cell.beta,
            seed=cell.seed,
            precision=context.precision(cell.precision),
            on_epoch=on_epoch,
            on_pictures=on_pictures,
        )
        seconds = time.perf_counter() - begun
    pictures |= _last_pictures(vae, data.test)
    info = {
        "seconds": seconds,
        "epochs": recipe["epochs"],
        "precision": context.precision(cell.precision),
        "images_per_second": recipe["epochs"] * len(data.train) / seconds,
        "parameters": sum(weight.numel() for weight in vae.parameters()),
        "curves": curves,
    }
    # The pictures first: weights without them would be a run that cannot show its first epochs.
    keep(kept, _archive(pictures))
    return vae, save_weights(context.weights, cell.weights_key, vae, info) | {"cached": False}, pictures


def samples(vae: VAENetwork, seed: int, n: int = SAMPLES) -> np.ndarray:
    """``n`` images from the prior, float32 (n, C, H, W) in [0, 1].

    The same latents for the same seed, so that the pictures of two epochs show the same points of the latent space.
    """
    device = next(vae.parameters()).device
    index = torch.arange(n, device=device)
    z = KeyedNoise(seed, index, torch.zeros_like(index)).normal(vae.z_dim)
    return vae.sample(z, torch.Generator(device).manual_seed(seed)).cpu().numpy()


def manifold(vae: VAENetwork, side: int = MANIFOLD_SIDE) -> np.ndarray:
    """Mean images (side², C, H, W) over the two latent dimensions: the first runs down, the second across.

    The grid is even in probability: the quantiles of the standard normal at (i + ½) / side.
    """
    device = next(vae.parameters()).device
    quantiles = torch.special.ndtri((torch.arange(side, device=device) + 0.5) / side)
    return vae.mean_image(torch.cartesian_prod(quantiles, quantiles)).cpu().numpy()


def _last_pictures(vae: VAENetwork, examples: Examples) -> Pictures:
    original = examples.pixels(slice(0, RECONSTRUCTIONS))
    pictures = {"reconstructions": torch.stack([original, vae.reconstruct(original)]).cpu().numpy()}
    return pictures | ({"manifold": manifold(vae)} if vae.z_dim == 2 else {})


def _metrics(vae: VAENetwork, data: Data, seed: int) -> dict[str, Metric]:
    metrics = {}
    for name in ("train", "validation", "test"):
        parts = evaluate_vae(vae, getattr(data, name), seed, "float32").cpu()
        metrics[f"{name}_bpd"] = _mean(parts.sum(1))
    # The last parts are those of the test examples.
    return metrics | {"rate_bpd": _mean(parts[:, 1]), "distortion_bpd": _mean(parts[:, 0])}


def _mean(values: torch.Tensor) -> Metric:
    mean, low, high = mean_interval(values.tolist())
    interval = (low, high) if np.isfinite(low) else (None, None)  # one example says nothing about the spread
    return Metric(value=mean, low=interval[0], high=interval[1], n=len(values))


def _archive(pictures: Pictures) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **pictures)  # type: ignore[arg-type]
    return buffer.getvalue()


def _read(path: Path) -> Pictures:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a picture archive ({error}); delete it and the next run trains anew") from error
