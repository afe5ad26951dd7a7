"""What is known of a data set without reading it: shape, classes, sizes, and the split. No torch.

The data sets that come with epsbench are described here. Those of a user's own are described by their sources, one a
file in this folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from epsbench.harness.plan.data.class_names import CIFAR10, CIFAR100, FASHION

if TYPE_CHECKING:
    from epsbench.harness.plan.data.own import OwnData

# Which of n training examples a model is trained on, as positions in the training split. The order of the split is a
# seeded permutation, so the halves are random; together they hold every example once.
SUBSETS: dict[str, Callable[[int], slice]] = {
    "all": lambda n: slice(0, n),
    "first-half": lambda n: slice(0, n // 2),
    "second-half": lambda n: slice(n // 2, n),
}


@dataclass(frozen=True)
class DataDescription:
    """What is known of a data set before an image is read: enough to build a model and to plan a suite."""

    name: str
    """As a suite writes it."""
    shape: tuple[int, int, int]
    """Channels, height, width."""
    classes: int
    """The number of classes."""
    sizes: tuple[int, int, int]
    """The number of train, validation and test examples."""
    own_test: bool
    """Whether the data set has a test set of its own. Otherwise all three parts are drawn from one pool."""
    mean: tuple[float, ...]
    """The mean of each channel over the training images, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """The standard deviation of each channel, likewise."""
    split_seed: int = 42
    """The seed of the permutation that splits the pool."""
    content: str = ""
    """Of a user's own data: a digest of its images and labels. Its source has split and ordered the examples."""
    class_names: tuple[str, ...] = ()
    """What the classes are called, where that is known."""
    missing: tuple[tuple[str, str], ...] = ()
    """Splits that a user's own data lacks, each with the reason where there is one."""
    divides_test: bool = False
    """Whether validation and test examples both come from the data set's own test set, and all others train."""

    def split(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices of the train, validation and test examples.

        The first two index the training pool. The third indexes the test set, or the pool when there is no test set.
        Where the test set is divided, the second indexes it too.
        NumPy's compatibility policy freezes ``RandomState.permutation``, so every machine and version makes the same
        split.
        """
        train, validation, test = self.sizes
        if self.content:
            return np.arange(train), np.arange(validation), np.arange(test)
        if self.divides_test:
            order = np.random.RandomState(self.split_seed).permutation(validation + test)
            return np.random.RandomState(self.split_seed).permutation(train), order[:validation], order[validation:]
        pool = train + validation + (0 if self.own_test else test)
        order = np.random.RandomState(self.split_seed).permutation(pool)
        parts = order[:train], order[train : train + validation], order[train + validation :]
        return (parts[0], parts[1], np.arange(test)) if self.own_test else parts

    @cached_property
    def identity(self) -> str:
        """A digest of the name, the normalisation and every index of the split. Equal digests mean equal data."""
        if self.content:
            facts = (self.content, self.shape, self.classes, self.sizes, self.mean, self.std)
            return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        digest = hashlib.sha256(f"{self.name} {self.mean} {self.std}".encode())
        for part in self.split():
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def training_images(self, limit: int | None, subset: str = "all") -> int:
        """How many images an epoch takes of this subset of the first ``limit`` training examples; None: of all."""
        size = self.sizes[0] if limit is None else max(0, min(self.sizes[0], limit))
        return len(range(size)[SUBSETS[subset](size)])

    def subset_identity(self, subset: str) -> str:
        """A digest of `identity` and of every index of this subset of the training examples."""
        return self._subset_identities[subset]

    @cached_property
    def _subset_identities(self) -> dict[str, str]:
        train = self.split()[0].astype("<i8")
        parts = {subset: train[chosen(len(train))].tobytes() for subset, chosen in SUBSETS.items()}
        return {
            subset: hashlib.sha256(self.identity.encode() + part).hexdigest()[:16] for subset, part in parts.items()
        }


DATASETS: dict[str, DataDescription] = {
    d.name: d
    for d in (
        DataDescription("digits", (1, 8, 8), 10, (1197, 100, 500), False, (0.305,), (0.376,)),
        DataDescription("mnist", (1, 28, 28), 10, (54_000, 6_000, 10_000), True, (0.1307,), (0.3081,)),
        DataDescription(
            "fashion-mnist", (1, 28, 28), 10, (54_000, 6_000, 10_000), True, (0.2860,), (0.3530,), class_names=FASHION
        ),
        DataDescription(
            "cifar10",
            (3, 32, 32),
            10,
            (45_000, 5_000, 10_000),
            True,
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
            class_names=CIFAR10,
        ),
        # The course assignment's own split: all 50,000 images train, and the test set is divided.
        DataDescription(
            "cifar10:assignment",
            (3, 32, 32),
            10,
            (50_000, 7_500, 2_500),
            True,
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
            divides_test=True,
            class_names=CIFAR10,
        ),
        DataDescription(
            "cifar100",
            (3, 32, 32),
            100,
            (45_000, 5_000, 10_000),
            True,
            (0.5071, 0.4865, 0.4409),
            (0.2673, 0.2564, 0.2762),
            class_names=CIFAR100,
        ),
    )
}


def describe(data: str | OwnData) -> DataDescription:
    """What is known of the data set that a cell names."""
    return DATASETS[data] if isinstance(data, str) else data.description
