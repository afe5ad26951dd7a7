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

from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import GenerationCell
from epsbench.harness.plan.names import registry
from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record, keep, write_pictures
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.evaluate import evaluate
from epsbench.harness.run.generative.pictures import Pictures, last_pictures, samples
from epsbench.harness.run.machine.lock import turn
from epsbench.harness.run.machine.memory import peak_bytes, reset_peak
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import Curves, seeded
from epsbench.harness.run.training.seeding import steps_per_epoch
from epsbench.harness.run.training.vae import train_vae
from epsbench.harness.run.training.weights import load_weights, save_weights
from epsbench.models.vae import VAENetwork


def run_generation_job(job: Job, context: Context) -> Iterator[Record]:
    """The record of each of a job's cells: measures, curves and pictures.

    What is reported is measured in float32 on the final model, whatever precision it was trained in.
    """
    cells = [cell for cell in job.cells if isinstance(cell, GenerationCell)]
    first = cells[0]
    data = context.data(first.data, first.limit)
    started = context.clock()
    reset_peak(context.device)
    vae, training, pictures = trained(first, data, context)
    curves = training.pop("curves")
    for cell in cells:
        begun = time.perf_counter()
        measured = evaluate(
            vae,
            data,
            dict(cell.evaluation),
            cell.seed,
            weights_folder=context.weights,
            progress=context.progress,
            label=cell.label(),
        )
        seconds = time.perf_counter() - begun
        write_pictures(context.results, cell.id, pictures | last_pictures(vae, data.test) | measured.pictures)
        yield context.record(
            cell,
            "ok",
            started,
            metrics=measured.metrics,
            cost={
                "training_seconds": training["seconds"],
                "training_images_per_second": training["images_per_second"],
                "seconds": seconds,
                "peak_bytes": peak_bytes(context.device),
                "precision": context.precision(cell.precision),
                "device": context.device_name(),
            },
            training=training,
            evaluation=measured.evaluation,
            curves=curves | measured.curves,
            pictures=True,
        )


def trained(cell: GenerationCell, data: Data, context: Context) -> tuple[VAENetwork, dict[str, Any], Pictures]:
    """The cell's VAE with its trained weights, what training cost, and the samples drawn on the way.

    All three come from the cache when they are there. A training that was stopped goes on from its checkpoint, and one
    that another process is at is waited for.
    """
    model = registry.make("model", cell.model, context.base)
    vae: VAENetwork = seeded(lambda: model.build(data.description, cell.z_dim), cell.seed).to(context.device)
    with turn(context.weights / f".{cell.weights_key}.lock"):
        kept = context.weights / f"{cell.weights_key}.npz"
        checkpoint = Checkpoint(context.weights / f"{cell.weights_key}.checkpoint")
        pictures: Pictures = _read(kept) if kept.is_file() else {}
        cached = load_weights(context.weights, cell.weights_key, vae) if pictures else None
        training = cached or _train(vae, cell, data, context, checkpoint, pictures, kept)
        checkpoint.remove()
    return vae.eval(), training | {"cached": cached is not None}, pictures


def _train(
    vae: VAENetwork,
    cell: GenerationCell,
    data: Data,
    context: Context,
    checkpoint: Checkpoint,
    pictures: Pictures,
    kept: Path,
) -> dict[str, Any]:
    """Train the cell's VAE, leave weights and ``pictures`` in the cache, and tell what it cost."""
    recipe = dict(cell.training)
    title = f"training {cell.label()}"
    with context.progress.task(title, recipe["epochs"]) as task, closing(context.board(cell.weights_key)) as board:

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                board.add_scalar(f"training/{name}", value, epoch)
            task.advance(epoch - shown[-1], **values)
            shown.append(epoch)

        def on_pictures(epoch: int, network: VAENetwork) -> None:
            pictures[f"samples_epoch_{epoch:04d}"] = samples(network, cell.seed)
            # At once, and before the weights: no later run can draw these epochs again.
            keep(kept, _archive(pictures))

        shown = [0]
        outcome = train_vae(
            vae,
            data,
            recipe,
            cell.beta,
            seed=cell.seed,
            precision=context.precision(cell.precision),
            compile=context.compile,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            on_pictures=on_pictures,
        )
    seen = steps_per_epoch(len(data.train), recipe["batch_size"]) * min(recipe["batch_size"], len(data.train))
    info = {
        "seconds": outcome.seconds,
        "epochs": recipe["epochs"],
        "precision": context.precision(cell.precision),
        **outcome.form.told(),
        "resumed": outcome.resumed,
        "images_per_second": recipe["epochs"] * seen / outcome.seconds if outcome.seconds else 0.0,
        "parameters": sum(weight.numel() for weight in vae.parameters()),
        "curves": _named(outcome.curves, vae),
    }
    return save_weights(context.weights, cell.weights_key, vae, info)


def _named(curves: Curves, vae: VAENetwork) -> Curves:
    """The curves of training; those of an autoencoder are no bound, and must not pass for one."""
    if not vae.deterministic:
        return curves
    return {name.replace("_bpd", "_distortion_bpd"): values for name, values in curves.items()}


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
