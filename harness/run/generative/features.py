"""The features that sample quality is measured on: those of a small classifier, always trained in the same way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from epsbench.harness.digest import digest
from epsbench.harness.errors import InputError
from epsbench.harness.plan.axes.recipes import RobustnessTraining
from epsbench.harness.plan.later import ROBUSTNESS_RECIPE
from epsbench.harness.plan.later import recipe as recorded
from epsbench.harness.run.data.examples import Data
from epsbench.harness.run.machine.environment import arithmetic
from epsbench.harness.run.machine.lock import turn
from epsbench.harness.run.machine.memory import in_chunks
from epsbench.harness.run.training.classifier import EVALUATION_BATCH, accuracy, train_classifier
from epsbench.harness.run.training.seeding import seeded
from epsbench.harness.run.training.settings import Method, Settings
from epsbench.harness.run.training.weights import load_weights, save_weights
from epsbench.models.catalogue import SmallCNN
from epsbench.models.defenses import NoDefense
from epsbench.models.smallcnn import SmallCNNNetwork

SEED = 0
# The version of the recipe below and of the code that it uses. Change it when the trained features change: distances
# on different features cannot be compared.
VERSION = "ea90ecbd2bfd1f77"
STEPS = 1200
MOST_EPOCHS = 100
BATCH = 128


def recipe(n: int) -> dict[str, Any]:
    """How the classifier is trained on ``n`` images: Adam on one cycle of about 1,200 steps, 3 epochs of MNIST.

    Very small data sets get at most 100 epochs.
    """
    epochs = min(MOST_EPOCHS, math.ceil(STEPS * BATCH / n))
    return RobustnessTraining(epochs=epochs, batch_size=BATCH, learning_rate=4e-3).model_dump()


def feature_network(data: Data, folder: Path) -> tuple[SmallCNNNetwork, dict[str, Any]]:
    """The classifier, and ``feature_weights_sha256`` and ``feature_accuracy`` (of the test images) for the record.

    It is trained on the training images without augmentation, in float32, from a fixed seed, and saved in ``folder``.
    Distances on its features can be compared only if the digests of the weights are equal. Raises `InputError` for data
    that it cannot be built for, and as `load_weights` does.
    """
    description, architecture = data.description, SmallCNN()
    check_features(data)
    # A SmallCNN builds a SmallCNNNetwork, although its signature says only that it is a module.
    network = cast(SmallCNNNetwork, seeded(lambda: architecture.build(description), SEED)).to(data.train.device)
    training = recipe(len(data.train))
    key = digest(
        {
            "purpose": "features of sample quality",
            "data": [description.name, description.identity, len(data.train), len(data.test)],
            "training": recorded(tuple(training.items()), ROBUSTNESS_RECIPE) | {"average": training["average"]},
            "seed": SEED,
            "code": VERSION,
        }
    )
    info = load_weights(folder, key, network)  # without the lock, for which a read-only folder has no place
    if info is None:
        with turn(folder / f".{key}.lock"):
            info = load_weights(folder, key, network)
            if info is None:
                with arithmetic("float32"):
                    # Torch's own layers only, because these weights must not change: see VERSION.
                    method = Method(NoDefense(), "none", training)
                    train_classifier(network, data, method, Settings(SEED, "float32", subpixel=False))
                    info = save_weights(folder, key, network, {"accuracy": accuracy(network, data.test, "float32")})
    entries = {"feature_weights_sha256": info["weights_sha256"], "feature_accuracy": info["accuracy"]}
    return network.eval().requires_grad_(False), entries


def check_features(data: Data) -> None:
    """Raise `InputError` for data that the classifier cannot be built for."""
    try:
        SmallCNN().check(data.description)
    except ValueError as error:
        raise InputError(
            f"data {data.description.name!r}: sample quality needs the features of a classifier ({error}); "
            "set generated = 0 under [generation.evaluation] to leave it out"
        ) from error


def features(network: SmallCNNNetwork, pixels: Tensor) -> Tensor:
    """The hidden units before the logits, after their non-linearity: float32 (n, hidden).

    ``pixels`` is (n, C, H, W) in [0, 1], on the network's device.
    """
    # All layers but the last, which computes the logits.
    hidden = network.layers[:-1]

    def units(rows: slice) -> Tensor:
        with torch.no_grad():
            return hidden(network.normalise(pixels[rows]))

    return in_chunks(units, len(pixels), EVALUATION_BATCH)
