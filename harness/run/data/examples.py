"""Images and labels on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

import torch
from torch import Tensor

from epsbench.harness.plan.data import SUBSETS, DataDescription

PIXELS = 2**22  # numbers in the images of which keys are made at once, to bound the memory


class Examples:
    """Images and labels on one device. The images are stored as they come; `pixels` makes floats of them."""

    reads_ahead = False
    """Whether `expect` has anything to do."""

    def __init__(self, raw: Tensor, labels: Tensor, brightest: int) -> None:
        """``raw`` is uint8 (n, C, H, W) with values 0 to ``brightest``, or float32 in [0, 1]; ``labels`` int64 (n,)."""
        self._raw = raw
        self._brightest = brightest
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> Examples:
        """Only these examples; they share memory with the rest."""
        return Examples(self._raw[rows], self.labels[rows], self._brightest)

    def keys(self) -> Iterator[bytes]:
        """For each image what is the same for equal ones: a digest of its pixels at 256 levels."""
        step = max(1, PIXELS // max(1, self.pixels(slice(0, 1)).numel()))
        for start in range(0, len(self), step):
            pixels = self.pixels(slice(start, min(start + step, len(self))))
            levels = (pixels * 255).round().byte().flatten(1).cpu().numpy()
            yield from (blake2b(image.tobytes(), digest_size=16).digest() for image in levels)

    def to(self, device: torch.device) -> Examples:
        """The same examples on another device."""
        return Examples(self._raw.to(device), self.labels.to(device), self._brightest)

    @property
    def device(self) -> torch.device:
        """The device of the images and the labels."""
        return self.labels.device

    def pixels(self, index: Tensor | slice | None = None) -> Tensor:
        """float32 images (n, C, H, W) in [0, 1], of all examples or of those that ``index`` picks."""
        raw = self._raw if index is None else self._raw[index]
        # Of floats always a copy: what a model or an attack does to its images must not change the data.
        return raw.to(torch.float32, copy=raw.is_floating_point()).div_(self._brightest)

    def expect(self, index: Tensor) -> None:
        """Say that `pixels` at these positions (k,) is asked for next. What is on the device needs no preparation."""


@dataclass(frozen=True)
class Data:
    """A data set, split as its description says."""

    description: DataDescription
    """Its name, shape, classes and split."""

    train: Examples
    """What networks are trained on."""

    validation: Examples
    """What networks are evaluated on during training."""

    test: Examples
    """What attacks and measures use."""

    @cached_property
    def seen_in_training(self) -> list[int]:
        """The positions of test images that are training or validation images, too, pixel by pixel, at 256 levels."""
        known = {*self.train.keys(), *self.validation.keys()}
        return [position for position, key in enumerate(self.test.keys()) if key in known]

    def to(self, device: torch.device) -> Data:
        """The same data on another device."""
        parts = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **parts)

    def trained_on(self, subset: str) -> Data:
        """The same data with only this subset of the training examples; validation and test stay whole."""
        return self if subset == "all" else replace(self, train=self.train[SUBSETS[subset](len(self.train))])
