"""The adversarial image of every test image, kept beside a record where a run asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epsbench.harness.files import Chunked, keep_archive
from epsbench.harness.records import images_path
from epsbench.harness.run.attack.kept_images import let_go, slices_of
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.data.examples import Examples


@dataclass(frozen=True)
class CleanImages:
    """The test images before the attack."""

    examples: Examples
    """Images and labels of those that are kept, (k,)."""

    predicted: np.ndarray
    """The judge's class of every test image, (n,)."""

    of: int
    """n, the number of test images."""


def write_images(results: Path, identity: str, clean: CleanImages, targets: Targets, outcome: Outcome) -> None:
    """Write ``RESULTS/images/<id>.npz`` with the first k test images. Raises `InputError` where it cannot be written.

    An image that is misclassified without an attack is not attacked: it is there as it is.
    """
    n = len(clean.examples)
    index = targets.index.cpu().numpy()
    index = index[index < n]
    k = len(index)
    predicted = clean.predicted[:n]
    shape = (n, *outcome.images.shape[1:])
    adversarial, fooled, attacked = predicted.copy(), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    distance, loss = (np.full(n, np.nan, dtype=np.float32) for _ in range(2))
    adversarial[index], fooled[index], attacked[index] = outcome.predicted[:k], outcome.fooled[:k], True
    distance[index], loss[index] = outcome.size[:k], outcome.loss[:k]
    arrays = {
        "images": Chunked(shape, np.float32, lambda: _images(clean.examples, index, outcome)),
        "labels": clean.examples.labels.cpu().numpy(),
        "clean_class": predicted,
        "adversarial_class": adversarial,
        "attacked": attacked,
        "fooled": fooled,
        "distance": distance,
        "loss": loss,
        "eps": np.float64(outcome.eps),
        "of": clean.of,
    }
    keep_archive(images_path(results, identity), arrays)


def _images(examples: Examples, index: np.ndarray, outcome: Outcome) -> Iterator[np.ndarray]:
    """The images (n, C, H, W), some at a time: adversarial ones at ``index`` (k,), which ascends, elsewhere clean."""
    for rows in slices_of(len(examples), outcome.images.shape[1:]):
        images = examples.pixels(rows).cpu().numpy()
        first, last = np.searchsorted(index, (rows.start, rows.stop))
        images[index[first:last] - rows.start] = outcome.images[first:last].numpy()
        let_go(outcome.images)
        yield images
