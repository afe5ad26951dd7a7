"""Data sets as tensors on the device, and augmentations of whole batches there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import InputError, did_you_mean
from harness.spec.datasets import DATASETS, SUBSETS, DataDescription

DEFAULT_ROOT = Path("~/.cache/epsbench")


class Examples:
    """Images and labels on one device. The images stay in their stored integers; pixels are made on demand."""

    def __init__(self, raw: Tensor, labels: Tensor, brightest: int) -> None:
        """``raw`` is uint8 (n, C, H, W) with values 0 to ``brightest``; ``labels`` is int64 (n,)."""
        self._raw = raw
        self._brightest = brightest
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Examples:
        """These examples alone, sharing memory with the rest."""
        return Examples(self._raw[rows], self.labels[rows], self._brightest)

    @property
    def device(self) -> torch.device:
        """Where the images and the labels lie."""
        return self.labels.device

    def pixels(self, index: Tensor | slice | None = None) -> Tensor:
        """float32 images (n, C, H, W) in [0, 1], of all examples or of those that ``index`` picks."""
        raw = self._raw if index is None else self._raw[index]
        return raw.to(torch.float32).div_(self._brightest)


@dataclass(frozen=True)
class Data:
    """A data set, split as its description says."""

    description: DataDescription
    train: Examples
    validation: Examples
    test: Examples

    def trained_on(self, subset: str) -> Data:
        """The same data with this subset of the training examples alone; validation and test stay whole."""
        return replace(self, train=self.train[SUBSETS[subset](len(self.train))])


# The stored images and labels of the training pool, and of the test set where there is one of its own.
Stored = tuple[Tensor, Tensor]
Reader = Callable[[DataDescription, Path], tuple[Stored, Stored | None]]


@dataclass(frozen=True)
class Source:
    """How a data set is read: the reader, and the value of a white pixel."""

    read: Reader
    brightest: int = 255


def load_data(name: str, root: Path | None, device: torch.device, limit: int | None = None) -> Data:
    """The named data set on ``device``; ``limit`` keeps at most that many examples of each split.

    ``root`` (else ``EPSBENCH_DATA``, else ``~/.cache/epsbench``) is laid out as torchvision lays it out; what is
    missing is downloaded into it. Raises `InputError` for an unknown name and for data that cannot be had.
    """
    if name not in DATASETS:
        raise InputError(f"data {name!r} is not known{did_you_mean(name, DATASETS)}")
    description, source = DATASETS[name], SOURCES[name]
    folder = root or Path(os.environ.get("EPSBENCH_DATA") or DEFAULT_ROOT)
    pool, own_test = source.read(description, folder.expanduser())

    def part(stored: Stored, index: Tensor) -> Examples:
        images, labels = (tensor[index[:limit]].to(device) for tensor in stored)
        return Examples(images, labels, source.brightest)

    train, validation, test = (torch.from_numpy(index) for index in description.split())
    return Data(description, part(pool, train), part(pool, validation), part(own_test or pool, test))


def _read_digits(description: DataDescription, root: Path) -> tuple[Stored, None]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
    return (images, torch.from_numpy(digits.target).to(torch.int64)), None


def _torchvision(dataset: str) -> Reader:
    """A reader of torchvision's class of this name."""

    def read(description: DataDescription, root: Path) -> tuple[Stored, Stored]:
        from torchvision import datasets

        kind = getattr(datasets, dataset)

        def stored(train: bool) -> Stored:
            try:
                try:
                    found = kind(root, train=train, download=False)
                except RuntimeError:  # torchvision's word for "not there": now it may write
                    found = kind(root, train=train, download=True)
            except (OSError, RuntimeError, HTTPException, ValueError, AssertionError, EOFError) as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"data {description.name!r}: not in {root} and not to be downloaded ({reason}); "
                    "name the folder that holds it, in torchvision's layout, with --data or EPSBENCH_DATA"
                ) from error
            images = torch.as_tensor(found.data)
            # MNIST stores (n, H, W); CIFAR stores (n, H, W, C).
            images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
            return images.contiguous(), torch.as_tensor(found.targets, dtype=torch.int64)

        return stored(train=True), stored(train=False)

    return read


SOURCES: dict[str, Source] = {
    "digits": Source(_read_digits, brightest=16),
    "mnist": Source(_torchvision("MNIST")),
    "fashion-mnist": Source(_torchvision("FashionMNIST")),
    "cifar10": Source(_torchvision("CIFAR10")),
    "cifar100": Source(_torchvision("CIFAR100")),
}


def _keep(x: Tensor, generator: torch.Generator) -> Tensor:
    return x


def _crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random mirror image, and a random crop of the image padded with 4 black pixels a side."""
    mirrored = torch.rand(len(x), 1, generator=generator, device=x.device) < 0.5
    return _cropped(x, 4, generator, mirrored)


def _shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random shift by up to 2 pixels each way, black where nothing was."""
    return _cropped(x, 2, generator)


def _cropped(x: Tensor, margin: int, generator: torch.Generator, mirrored: Tensor | None = None) -> Tensor:
    """Crops of the padded batch, each image at its own offset: one gather for the whole batch, no loop."""
    n, _, height, width = x.shape
    padded = F.pad(x, (margin, margin, margin, margin))
    top, left = torch.randint(2 * margin + 1, (2, n, 1), generator=generator, device=x.device)
    rows = top + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(n, width)
    if mirrored is not None:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    image = torch.arange(n, device=x.device).view(n, 1, 1)
    # Indices on both sides of the channel slice put the channels last: back to (N, C, H, W).
    return padded[image, :, rows.unsqueeze(2), (left + columns).unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


# Each takes images (N, C, H, W) in [0, 1] and a generator on their device, and returns as many images.
AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": _keep,
    "crop-flip": _crop_flip,
    "shift": _shift,
}
