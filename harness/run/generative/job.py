"""One generative model: from data to its record."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from epsbench.harness.errors import InputError, summary
from epsbench.harness.files import DAMAGED_ARCHIVE, keep_archive
from epsbench.harness.findings import finding
from epsbench.harness.plan.cell import GenerationCell
from epsbench.harness.plan.names import registry
from epsbench.harness.plan.plan import Job
from epsbench.harness.records import Record, write_pictures
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.generative.apart import apart
from epsbench.harness.run.generative.audits.auditor import Auditor
from epsbench.harness.run.generative.evaluate import Subject, evaluate
from epsbench.harness.run.generative.measured import Measured
from epsbench.harness.run.generative.parts import Parts
from epsbench.harness.run.generative.pictures import Pictures, last_pictures, samples
from epsbench.harness.run.generative.witness import Witness
from epsbench.harness.run.machine.memory import peak_bytes, reset_peak
from epsbench.harness.run.training.seeding import seeded, steps_per_epoch
from epsbench.harness.run.training.settings import Curves, Hooks, Settings, Training
from epsbench.harness.run.training.trained import TrainingRun, weights_of
from epsbench.harness.run.training.vae import train_vae
from epsbench.models.vae import VAENetwork


def run_generation_job(job: Job, context: Context) -> Iterator[Record]:
    """The record of each of a job's cells: measures, curves, pictures, and the findings of the audits.

    Everything is measured in float32 on the final model, whatever precision it was trained in, and by its encoder, its
    decoder and its prior alone, whatever loss it was trained on.
    """
    cells = [cell for cell in job.cells if isinstance(cell, GenerationCell)]
    first = cells[0]
    data = context.data(first.data, first.limit)
    started = context.clock()
    reset_peak(context.device)
    vae, training, pictures = trained(first, data, context)
    curves = training.pop("curves")
    with apart(vae, data.description.shape) as copy:
        for cell in cells:
            began = time.perf_counter()
            witness = Witness(cell.seed)
            parts = Parts(vae, data.description.shape, witness, cell.z_dim)
            subject, auditor = Subject(parts, data, dict(cell.evaluation), cell.seed, witness), Auditor(vae, data, copy)
            auditor.before(subject)
            measured = Measured()
            if not auditor.void:  # else there is nothing to measure: NaN, or codes that are no draws of a posterior
                measured = _measured(subject, auditor, cell, context)
            seconds = time.perf_counter() - began - auditor.seconds
            shown = pictures | _last_pictures(parts, data, auditor) | measured.pictures
            write_pictures(context.results, cell.id, shown)
            yield context.record(
                cell,
                "void" if auditor.void else "ok",
                started,
                metrics=measured.metrics,
                cost={
                    "training_seconds": training["seconds"],
                    "training_images_per_second": training["images_per_second"],
                    "seconds": seconds,
                    "audit_seconds": auditor.seconds,
                    "peak_bytes": peak_bytes(context.device),
                    "precision": context.precision(cell.precision),
                    "device": context.device_name(),
                    "threads": torch.get_num_threads(),
                },
                training=training,
                evaluation=measured.evaluation,
                curves=curves | measured.curves,
                findings=tuple(auditor.findings),
                pictures=True,
            )


def _measured(subject: Subject, auditor: Auditor, cell: GenerationCell, context: Context) -> Measured:
    """What is measured, and audited; nothing of a model that raises because its parts are no functions."""
    try:
        measured = evaluate(subject, context.weights, context.progress, cell.label())
    except InputError:
        raise
    except Exception:
        auditor.failed(subject)
        if not auditor.void:
            raise
        return Measured()
    auditor.after(subject, measured)
    return measured


def _last_pictures(parts: Parts, data: Data, auditor: Auditor) -> Pictures:
    """The last pictures; none of a void model that raises."""
    try:
        return last_pictures(parts, data.test)
    except Exception as error:
        if not auditor.void:
            raise
        reason = f"the last pictures could not be made ({summary(error)})"
        auditor.findings.append(finding("output-failed", reason, output="pictures", error=type(error).__name__))
        return {}


def trained(cell: GenerationCell, data: Data, context: Context) -> tuple[VAENetwork, dict[str, Any], Pictures]:
    """The cell's VAE with its trained weights, what training took, and the samples drawn during training.

    All three come from the cache if they are there.
    """
    model = registry.make("model", cell.model, context.base)
    vae: VAENetwork = seeded(lambda: model.build(data.description, cell.z_dim), cell.seed).to(context.device)
    path, recipe = context.weights / f"{cell.weights_key}.npz", dict(cell.training)
    pictures: Pictures = {}

    def complete() -> bool:
        pictures.update(_read(path) if path.is_file() else {})
        return bool(pictures)

    def on_pictures(epoch: int, network: VAENetwork) -> None:
        pictures[f"samples_epoch_{epoch:04d}"] = samples(Parts(network, data.description.shape), cell.seed)
        # Saved at once, before the weights: a resumed training cannot draw the samples of earlier epochs again.
        keep_archive(path, pictures, compressed=True)

    def train(settings: Settings, hooks: Hooks) -> Training:
        training = train_vae(vae, data, recipe, cell.beta, settings, replace(hooks, on_pictures=on_pictures))
        return replace(training, curves=_named(training.curves, vae))

    batch = min(recipe["batch_size"], len(data.train))
    images = steps_per_epoch(len(data.train), recipe["batch_size"]) * batch
    run = TrainingRun(f"training {cell.label()}", images, train, complete=complete)
    info = weights_of(cell, vae, context, run)
    return vae.eval(), info, pictures


def _named(curves: Curves, vae: VAENetwork) -> Curves:
    """The curves of a training. Those of an autoencoder are no bound, so they are called distortion."""
    if not vae.deterministic:
        return curves
    return {f"{split}_distortion_bpd": curves[f"{split}_bpd"] for split in ("train", "validation")}


def _read(path: Path) -> Pictures:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except DAMAGED_ARCHIVE as error:
        raise InputError(f"{path}: not a picture archive ({error}); delete it and the next run trains anew") from error
