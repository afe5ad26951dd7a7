"""A cell's network with its trained weights: as given, from the cache, from a checkpoint, or trained now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from epsbench.harness.errors import InputError
from epsbench.harness.plan.cell import Cell, RobustnessCell
from epsbench.harness.plan.names import registry
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.machine.lock import turn
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import train_classifier
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Hooks, Settings, Training
from epsbench.harness.run.training.weights import digest, load_weights, save_weights, weights_path
from epsbench.models.checkpoints import load_into

Train = Callable[[Settings, Hooks], Training]
"""Trains a cell's network in place."""

PROBED = 8  # test images whose logits are kept with trained weights
_SAME = 5e-3  # of the largest logit; other kernels round otherwise by 1e-5


def build(cell: RobustnessCell, data: Data, context: Context) -> nn.Module:
    """The cell's network before training, its first weights drawn from the cell's seed."""
    model = registry.make("model", cell.model, context.base)
    network: nn.Module = seeded(lambda: model.build(data.description), cell.seed).to(context.device)
    return network


def trained(cell: RobustnessCell, data: Data, context: Context) -> tuple[nn.Module, dict[str, Any]]:
    """The cell's network with its trained weights, and what training took.

    With ``epochs = 0`` the network is measured as it is built, and nothing is kept of it. Raises `InputError` where the
    network built now is not the one whose weights were kept: it holds something that is not in its state dict.
    """
    network = build(cell, data, context)
    if not dict(cell.training)["epochs"] and cell.start is None:
        return network.eval(), _as_given(network, cell, context)
    examples = data.trained_on(cell.subset)

    def train(settings: Settings, hooks: Hooks) -> Training:
        defense = registry.make("defense", cell.defense, context.base)
        return train_classifier(network, defense, examples, cell.augmentation, dict(cell.training), settings, hooks)

    def before() -> dict[str, Any]:
        return _start(network, cell, context)

    title = f"training {cell.model.label()} · {cell.defense.label()}"
    info = weights_of(
        cell, network, context, train, title, len(examples.train), before, probe=lambda: _probe(network, data)
    )
    network.eval()
    _hold_against(info.pop("probe", None), network, data, cell, context)
    return network, info


def weights_of(
    cell: Cell,
    network: nn.Module,
    context: Context,
    train: Train,
    title: str,
    images: int,
    before: Callable[[], dict[str, Any]] = dict,
    complete: Callable[[], bool] = lambda: True,
    probe: Callable[[], list[Any]] = list,
) -> dict[str, Any]:
    """Give ``network`` the cell's trained weights, and return what training took.

    The weights come from the cache when they are there and what else belongs to them is ``complete``. A training that
    was stopped goes on from its checkpoint, and one that another process is at is waited for. ``before`` is called
    before a training, ``probe`` after it; what they return is kept with the weights.
    """
    folder, key = context.weights, cell.weights_key
    checkpoint = Checkpoint(folder / f"{key}.checkpoint")
    cached = load_weights(folder, key, network) if complete() else None
    if cached is None:
        with turn(folder / f".{key}.lock"):
            cached = load_weights(folder, key, network) if complete() else None
            if cached is None:
                settings = Settings(
                    cell.seed, context.precision(cell.precision), context.compile, checkpoint=checkpoint
                )
                extra = before()
                with _progress(cell, title, context) as hooks:
                    training = train(settings, hooks)
                info = _info(training, network, cell, settings.precision, images) | extra | {"probe": probe()}
                saved = save_weights(folder, key, network, info)
                checkpoint.remove()
                return saved | {"cached": False}
    checkpoint.remove()  # a kill may have come between the weights and this
    return cached | {"cached": True}


@contextmanager
def _progress(cell: Cell, title: str, context: Context) -> Iterator[Hooks]:
    """Hooks that show how far a training is, on the terminal and in TensorBoard."""
    epochs = dict(cell.training)["epochs"]
    with context.progress.task(title, epochs) as task, closing(context.board(cell.weights_key)) as board:
        shown: dict[str, float] = {}

        def on_resume(epoch: int) -> None:
            shown["resumed_after_epoch"] = epoch
            task.advance(epoch, **shown)

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                board.add_scalar(f"training/{name}", value, epoch)
            task.advance(1, **values, **shown)

        yield Hooks(on_epoch=on_epoch, on_resume=on_resume)


def _info(training: Training, network: nn.Module, cell: Cell, precision: str, images: int) -> dict[str, Any]:
    """What a record says of a training; ``images`` are seen in an epoch."""
    epochs = dict(cell.training)["epochs"]
    watch = {"watch_seconds": training.watch_seconds} if isinstance(cell, RobustnessCell) else {}
    return {
        **_loaded(network),
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
    """Give the network the trained weights that its cell starts from; returns their digest for the record."""
    if cell.start is None:
        return {}
    first, training = trained(cell.start, context.data(cell.start.data, cell.start.limit), context)
    load_into(network, first.state_dict(), cell.start.trained_label())
    return {"start_weights_sha256": training["weights_sha256"]}


def _loaded(network: nn.Module) -> dict[str, Any]:
    """Which set of weights of its file a network began with, where it has one."""
    chosen = getattr(network, "loaded_from", None)
    return {"loaded": chosen} if isinstance(chosen, str) else {}


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


def _probe(network: nn.Module, data: Data) -> list[Any]:
    """The logits of the first test images, for whoever loads the weights; empty where two passes differ."""
    network.eval()
    first, again = _logits(network, data), _logits(network, data)
    return first.tolist() if torch.equal(first, again) and bool(first.isfinite().all()) else []


def _hold_against(
    probe: list[Any] | None, network: nn.Module, data: Data, cell: RobustnessCell, context: Context
) -> None:
    if not probe:
        return
    expected, logits = torch.tensor(probe), _logits(network, data)
    apart = float((logits - expected).abs().max()) if logits.shape == expected.shape else float("inf")
    if not apart <= _SAME * float(expected.abs().max()) + 1e-6:
        raise InputError(
            f"{weights_path(context.weights, cell.weights_key)}: model {cell.model.label()!r} is not the one whose "
            f"weights were kept: with them its logits on {len(expected)} test images differ by up to {apart:.3g}. It "
            "holds something outside its state dict, such as a plain attribute or numbers drawn when it is made; make "
            "that a buffer, and delete the file to train anew"
        )


def _logits(network: nn.Module, data: Data) -> Tensor:
    """Float32 logits of the first test images, on the CPU."""
    with torch.inference_mode():
        return network(data.test.pixels(slice(0, PROBED))).float().cpu()
