"""The adversarial image of every test image, kept beside a record where a run asks for it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epsbench.harness.files import keep
from epsbench.harness.records import images_path
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.data.examples import Examples


@dataclass(frozen=True)
class CleanImages:
    """The test images before the attack."""

    examples: Examples
    """Images and labels."""

    predicted: np.ndarray
    """The judge's class of each, (n,)."""


def write_images(results: Path, identity: str, clean: CleanImages, targets: Targets, outcome: Outcome) -> None:
    """Write ``RESULTS/images/<id>.npz``. Raises `InputError` where it cannot be written.

    An image that is misclassified without an attack is not attacked: it is there as it is.
    """
    index = targets.index.cpu().numpy()
    n = len(clean.examples)
    images = clean.examples.pixels().cpu().numpy()
    images[index] = outcome.images.numpy()
    adversarial, fooled, attacked = clean.predicted.copy(), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    distance, loss = (np.full(n, np.nan, dtype=np.float32) for _ in range(2))
    adversarial[index], fooled[index], attacked[index] = outcome.predicted, outcome.fooled, True
    distance[index], loss[index] = outcome.size, outcome.loss
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=images,
        labels=clean.examples.labels.cpu().numpy(),
        clean_class=clean.predicted,
        adversarial_class=adversarial,
        attacked=attacked,
        fooled=fooled,
        distance=distance,
        loss=loss,
        eps=np.float64(outcome.eps),
    )
    keep(images_path(results, identity), buffer.getvalue())
