"""Loading a data set onto the device, split: by name, or of the user's own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.errors import InputError, did_you_mean
from epsbench.harness.plan.data import DATASETS, DataDescription
from epsbench.harness.plan.data.own import OwnData
from epsbench.harness.plan.data.pixels import Images, PixelFile
from epsbench.harness.plan.data.source import Part
from epsbench.harness.plan.data.stored import open_data
from epsbench.harness.plan.names.data import source_of
from epsbench.harness.run.data.arrays import shared
from epsbench.harness.run.data.examples import Data, Examples
from epsbench.harness.run.data.readers import digits, torchvision
from epsbench.harness.run.data.readers.source import Source, Stored
from epsbench.harness.run.data.streamed import StreamedExamples

OF_DEVICE = 2  # of a GPU's free memory a split may take one part in so many; the rest is for networks and gradients
DEFAULT_ROOT = Path("~/.cache/epsbench")

SOURCES: dict[str, Source] = {
    "digits": Source(digits.read, brightest=16),
    "mnist": Source(torchvision.reader("MNIST")),
    "fashion-mnist": Source(torchvision.reader("FashionMNIST")),
    "cifar10": Source(torchvision.reader("CIFAR10")),
    "cifar10:assignment": Source(torchvision.reader("CIFAR10")),
    "cifar100": Source(torchvision.reader("CIFAR100")),
}


def load_data(name: str | OwnData, root: Path | None, device: torch.device, limit: int | None = None) -> Data:
    """The data set on ``device``; ``limit`` keeps at most that many examples of each split.

    ``root`` (by default ``EPSBENCH_DATA``, or else ``~/.cache/epsbench``) has torchvision's layout; missing data is
    downloaded into it. Raises `InputError` for an unknown name and for data that can be neither read nor downloaded.
    """
    if isinstance(name, OwnData):
        return _own(name, device, limit)
    if name not in DATASETS:
        raise InputError(f"data {name!r} is not known{did_you_mean(name, DATASETS)}")
    description, source = DATASETS[name], SOURCES[name]
    folder = root or Path(os.environ.get("EPSBENCH_DATA") or DEFAULT_ROOT)
    # Not `Path.expanduser`, which raises for a user without a home; digits need no folder.
    pool, own_test = source.read(description, Path(os.path.expanduser(folder)))  # noqa: PTH111

    def part(stored: Stored, index: Tensor) -> Examples:
        images, labels = (tensor[index[:limit]] for tensor in stored)
        return _placed(images.numpy(), labels, source.brightest, device)

    train, validation, test = (torch.from_numpy(index) for index in description.split())
    tested = own_test or pool
    validated = tested if description.divides_test else pool
    return Data(description, part(pool, train), part(validated, validation), part(tested, test))


def _own(data: OwnData, device: torch.device, limit: int | None) -> Data:
    """A user's own data. A split that is not there is empty: without training it need not exist."""
    splits = open_data(source_of(data.named, data.base), data.description)
    train, validation, test = (_examples(part, data.description, device, limit) for part in splits.parts)
    return Data(data.description, train, validation, test)


def _examples(part: Part | None, description: DataDescription, device: torch.device, limit: int | None) -> Examples:
    if part is None:
        return Examples(torch.zeros(0, *description.shape), torch.zeros(0, dtype=torch.int64, device=device), 1)
    part = part.take(slice(0, limit))
    return _placed(part.images, torch.from_numpy(part.labels), 255 if part.images.dtype == np.uint8 else 1, device)


def _placed(images: Images, labels: Tensor, brightest: int, device: torch.device) -> Examples:
    """Images in memory go to the device where they fit; others, and those in a file, are streamed to it."""
    if isinstance(images, PixelFile) or not _fits(images.nbytes, device):
        return StreamedExamples(images, labels.to(device), brightest)
    return Examples(shared(images).to(device), labels.to(device), brightest)


def _fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes of images may go to the device: a CPU's memory has them already."""
    return device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] // OF_DEVICE
