"""A cell's network with its trained weights: as built, from the cache, from a checkpoint, or trained now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.harness.errors import InputError
from epsbench.harness.files import require_in_place
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.data import describe
from epsbench.harness.plan.names import registry
from epsbench.harness.plan.names.content import content_of
from epsbench.harness.plan.training_text import how_trained
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.machine.lock import turn
from epsbench.harness.run.training.answers import answers_of, changed
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import train_classifier
from epsbench.harness.run.training.seeding import seeded, steps_per_epoch
from epsbench.harness.run.training.settings import Hooks, Method, Settings, Training
from epsbench.harness.run.training.weights import digest, load_weights, save_weights, weights_path
from epsbench.models.catalogue import PREFIXES
from epsbench.models.checkpoints import load_into
from epsbench.models.hub import preprocessing_of


@dataclass(frozen=True)
class TrainingRun:
    """How the weights of a cell are made if they are not in the cache."""

    title: str
    """What the progress line calls the training."""

    images: int
    """The number of images in an epoch."""

    train: Callable[[Settings, Hooks], Training]
    """Trains the cell's network in place."""

    before: Callable[[], dict[str, Any]] = dict
    """Called before the training. What it returns is saved with the weights."""

    complete: Callable[[], bool] = lambda: True
    """Whether the other files that belong to the weights are in the cache. If not, the weights are trained again."""


def build(cell: RobustnessCell, data: Data, context: Context) -> nn.Module:
    """The cell's network before training, its first weights drawn from the cell's seed."""
    model = registry.make("model", cell.model, context.base)
    network: nn.Module = seeded(lambda: model.build(data.description), cell.seed).to(context.device)
    return network


def trained(cell: RobustnessCell, data: Data, context: Context) -> tuple[nn.Module, dict[str, Any]]:
    """The cell's network with its trained weights, and what training took.

    With ``epochs = 0`` the network is measured as it is built, and no weights are saved. Raises as `weights_of`.
    """
    _require_unchanged(cell, context)
    network = build(cell, data, context)
    if not dict(cell.training)["epochs"] and cell.start is None:
        return network.eval(), _as_given(network, cell, context)
    examples = data.trained_on(cell.subset)

    def train(settings: Settings, hooks: Hooks) -> Training:
        defense = registry.make("defense", cell.defense, context.base)
        method = Method(defense, cell.augmentation, dict(cell.training), context.base)
        return train_classifier(network, examples, method, settings, hooks)

    def before() -> dict[str, Any]:
        return _start(network, cell, context)

    title = f"training {cell.model.label()} · {cell.defense.label()}"
    info = weights_of(cell, network, context, TrainingRun(title, len(examples.train), train, before))
    return network.eval(), info


def _require_unchanged(cell: RobustnessCell, context: Context) -> None:
    """Raise `InputError` where a file of weights, or pretrained weights in a cache, were replaced since the plan.

    Otherwise the number of the new weights would stand under the id of the old ones. A user's factory is not asked
    again: what it returns may remember that it was used.
    """
    planned, now = cell.code, {}
    if "weights" in planned:
        now = registry.versions("model", cell.model, context.base)
    elif "content" in planned and cell.model.name.startswith(tuple(f"{prefix}:" for prefix in PREFIXES)):
        content = content_of(cell.model, context.base, describe(cell.data))
        now = {"content": content.digest} if content else {}
    if any(now[key] != planned[key] for key in ("weights", "content") if key in now and key in planned):
        raise InputError(
            f"model {cell.model.label()!r}: its weights were replaced since this run began; run again to measure the "
            "new ones"
        )


def weights_of(cell: Cell, network: nn.Module, context: Context, run: TrainingRun) -> dict[str, Any]:
    """Give ``network`` the cell's trained weights, and return what training took.

    The weights come from the cache if they are there with all files that belong to them. Otherwise they are trained,
    from a checkpoint if there is one. If another process is training them, this one waits for it. Raises as
    `require_same` for weights of another network.
    """
    folder, key = context.weights, cell.weights_key
    checkpoint = Checkpoint(folder / f"{key}.checkpoint")
    cached = load_weights(folder, key, network) if run.complete() else None
    if cached is None:
        require_in_place(context.results)
        with turn(folder / f".{key}.lock"):
            cached = load_weights(folder, key, network) if run.complete() else None
            if cached is None:
                settings = Settings(
                    cell.seed,
                    context.precision(cell.precision),
                    context.compile,
                    checkpoint=checkpoint,
                    most_threads=context.most_threads,
                )
                # Weights without their other files: no process may load them until the training below is complete.
                weights_path(folder, key).unlink(missing_ok=True)
                extra = run.before()
                with _progress(cell, run.title, run.images, context) as hooks:
                    training = run.train(settings, hooks)
                info = _info(training, network, cell, settings.precision, run.images) | extra
                answers = answers_of(network, describe(cell.data).shape)
                saved = save_weights(folder, key, network, info | {"answers": answers})
                checkpoint.remove()
                return info | {"weights_sha256": saved["weights_sha256"], "cached": False}
    checkpoint.remove()  # the run that saved the weights may have been killed before it did this
    require_same(cached.pop("answers", {}), network, describe(cell.data).shape, weights_path(folder, key))
    cached.pop("probe", None)  # files of earlier versions have it in place of the answers
    return cached | {"cached": True}


@contextmanager
def _progress(cell: Cell, title: str, images: int, context: Context) -> Iterator[Hooks]:
    """Hooks that show how far a training is, on the terminal and in TensorBoard."""
    epochs = dict(cell.training)["epochs"]
    title = f"{title}: {how_trained(cell)}"
    steps = steps_per_epoch(images, dict(cell.training)["batch_size"])
    with context.progress.task(title, epochs, "epochs") as task, closing(context.board(cell.weights_key)) as board:
        shown: dict[str, float] = {}
        taken = 0

        def on_step() -> None:
            nonlocal taken
            taken += 1
            task.to(taken / steps)

        def on_resume(epoch: int) -> None:
            nonlocal taken
            taken = epoch * steps
            shown["resumed_after_epoch"] = epoch
            task.advance(epoch, **shown)

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                board.add_scalar(f"training/{name}", value, epoch)
            task.advance(1, **values, **shown)

        yield Hooks(on_epoch=on_epoch, on_step=on_step, on_resume=on_resume)


def _info(training: Training, network: nn.Module, cell: Cell, precision: str, images: int) -> dict[str, Any]:
    """The entries of a record's ``training``; ``images`` is the number of images in an epoch."""
    epochs = dict(cell.training)["epochs"]
    watch = {"watch_seconds": training.watch_seconds} if isinstance(cell, RobustnessCell) else {}
    kept = {} if training.kept_epoch is None else {"kept_epoch": training.kept_epoch}
    return {
        **_loaded(network),
        **kept,
        "seconds": training.seconds,
        **watch,
        "resumed": training.resumed,
        **training.form.entries(),
        "epochs": epochs,
        "precision": precision,
        "images_per_second": epochs * images / training.seconds if training.seconds else 0.0,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "curves": training.curves,
    }


def _start(network: nn.Module, cell: RobustnessCell, context: Context) -> dict[str, Any]:
    """Load the trained weights that the cell starts from into the network; returns their digest for the record."""
    if cell.start is None:
        return {}
    first, training = trained(cell.start, context.data(cell.start.data, cell.start.limit), context)
    load_into(network, first.state_dict(), cell.start.trained_label())
    return {"start_weights_sha256": training["weights_sha256"]}


def _loaded(network: nn.Module) -> dict[str, Any]:
    """Which weights of the model's file were loaded, and what its library says of its images, where that is known."""
    chosen, preprocessing = getattr(network, "loaded_from", None), preprocessing_of(network)
    entries: dict[str, Any] = {"loaded": chosen} if isinstance(chosen, str) else {}
    return entries | ({"preprocessing": preprocessing.record()} if preprocessing else {})


def _as_given(network: nn.Module, cell: RobustnessCell, context: Context) -> dict[str, Any]:
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in network.state_dict().items()
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    }
    return {
        **_loaded(network),
        "seconds": 0.0,
        "epochs": 0,
        "precision": context.precision(cell.precision),
        "images_per_second": 0.0,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "curves": {},
        "weights_sha256": digest(tensors),
        "cached": False,
    }


def require_same(kept: Mapping[str, Any], network: nn.Module, shape: tuple[int, int, int], path: Path) -> None:
    """Raise `InputError` if a network with the weights of a file is not the one that was trained.

    ``kept`` is what `answers_of` gave for it; files of earlier versions have none.
    """
    if part := changed(kept, network, shape):
        raise InputError(
            f"{path}: the model is not the one whose weights were kept: with them {part} gives other numbers. "
            "It holds something outside its state dict, such as a plain attribute or numbers drawn when it is made; "
            "make that a buffer, and delete the file to train anew"
        )
