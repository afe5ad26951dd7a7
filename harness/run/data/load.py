"""Loading a data set by name, onto the device and split."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.data import DATASETS
from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.data.readers import digits, torchvision
from epsbench.harness.run.data.readers.source import Source, Stored

DEFAULT_ROOT = Path("~/.cache/epsbench")

SOURCES: dict[str, Source] = {
    "digits": Source(digits.read, brightest=16),
    "mnist": Source(torchvision.reader("MNIST")),
    "fashion-mnist": Source(torchvision.reader("FashionMNIST")),
    "cifar10": Source(torchvision.reader("CIFAR10")),
    "cifar100": Source(torchvision.reader("CIFAR100")),
}


def load_data(name: str, root: Path | None, device: torch.device, limit: int | None = None) -> Data:
    """The named data set on ``device``; ``limit`` keeps at most that many examples of each split.

    ``root`` (by default ``EPSBENCH_DATA``, or else ``~/.cache/epsbench``) has torchvision's layout; missing data is
    downloaded into it. Raises `InputError` for an unknown name and for data that can be neither read nor downloaded.
    """
    if name not in DATASETS:
        raise InputError(f"data {name!r} is not known{did_you_mean(name, DATASETS)}")
    description, source = DATASETS[name], SOURCES[name]
    folder = root or Path(os.environ.get("EPSBENCH_DATA") or DEFAULT_ROOT)
    # Not `Path.expanduser`, which raises for a user without a home; digits need no folder.
    pool, own_test = source.read(description, Path(os.path.expanduser(folder)))  # noqa: PTH111

    def part(stored: Stored, index: Tensor) -> Examples:
        images, labels = (tensor[index[:limit]].to(device) for tensor in stored)
        return Examples(images, labels, source.brightest)

    train, validation, test = (torch.from_numpy(index) for index in description.split())
    return Data(description, part(pool, train), part(pool, validation), part(own_test or pool, test))
