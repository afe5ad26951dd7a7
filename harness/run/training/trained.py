"""A cell's classifier with its trained weights: from the cache, from a checkpoint, or trained now."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from torch import nn

from epsbench.harness.plan.cell import RobustnessCell
from epsbench.harness.plan.names import registry
from epsbench.harness.run.context import Context
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.machine.lock import turn
from epsbench.harness.run.training.checkpoint import Checkpoint
from epsbench.harness.run.training.classifier import seeded, train_classifier
from epsbench.harness.run.training.weights import load_weights, save_weights
from epsbench.models.checkpoints import load_into


def build(cell: RobustnessCell, data: Data, context: Context) -> nn.Module:
    """The cell's network before training, its first weights drawn from the cell's seed."""
    model = registry.make("model", cell.model, context.base)
    network: nn.Module = seeded(lambda: model.build(data.description), cell.seed).to(context.device)
    return network


def trained(cell: RobustnessCell, data: Data, context: Context) -> tuple[nn.Module, dict[str, Any]]:
    """The cell's network with its trained weights, from the cache when they are there, and what training cost.

    A training that was stopped goes on from its checkpoint, and one that another process is at is waited for.
    """
    network, key = build(cell, data, context), cell.weights_key
    cached = load_weights(context.weights, key, network)
    if cached is None:
        with turn(context.weights / f".{key}.lock"):
            cached = load_weights(context.weights, key, network)
            if cached is None:
                begun = _begin(network, cell, context)
                return network, _train(network, cell, data.trained_on(cell.subset), context, begun) | {"cached": False}
    return network.eval(), cached | {"cached": True}


def _begin(network: nn.Module, cell: RobustnessCell, context: Context) -> dict[str, Any]:
    """Give the network the trained weights of the cell's start, trained where they are not there, and tell which."""
    if cell.start is None:
        return {}
    first, training = trained(cell.start, context.data(cell.start.data, cell.start.limit), context)
    load_into(network, first.state_dict(), cell.start.trained_label())
    return {"start_weights_sha256": training["weights_sha256"]}


def _train(
    network: nn.Module, cell: RobustnessCell, data: Data, context: Context, begun: dict[str, Any]
) -> dict[str, Any]:
    """Train the cell's network, leave its weights in the cache, and tell what it cost, beside how it had begun."""
    recipe = dict(cell.training)
    defense = registry.make("defense", cell.defense, context.base)
    precision = context.precision(cell.precision)
    checkpoint = Checkpoint(context.weights / f"{cell.weights_key}.checkpoint")
    title = f"training {cell.model.label()} · {cell.defense.label()}"
    with context.progress.task(title, recipe["epochs"]) as task, closing(context.board(cell.weights_key)) as board:
        shown: dict[str, float] = {}

        def on_resume(epoch: int) -> None:
            shown["resumed_after_epoch"] = epoch
            task.advance(epoch, **shown)

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                board.add_scalar(f"training/{name}", value, epoch)
            task.advance(1, **values, **shown)

        training = train_classifier(
            network,
            defense,
            data,
            cell.augmentation,
            recipe,
            seed=cell.seed,
            precision=precision,
            compile=context.compile,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            on_resume=on_resume,
        )
    info = {
        "seconds": training.seconds,
        "watch_seconds": training.watch_seconds,
        "resumed": training.resumed,
        **training.form.told(),
        "epochs": recipe["epochs"],
        "precision": precision,
        "images_per_second": recipe["epochs"] * len(data.train) / training.seconds if training.seconds else 0.0,
        "parameters": sum(p.numel() for p in network.parameters()),
        "curves": training.curves,
        **begun,
    }
    saved = save_weights(context.weights, cell.weights_key, network, info)
    checkpoint.remove()
    network.eval()
    return saved
