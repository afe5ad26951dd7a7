"""Data sets in torchvision's layout, which are downloaded if they are missing."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import torch

from epsbench.harness.errors import InputError
from epsbench.harness.plan.data import DataDescription
from epsbench.harness.run.data.readers.source import Reader, Stored


def reader(dataset: str) -> Reader:
    """A reader for torchvision's class of this name, such as ``"MNIST"``."""

    def read(description: DataDescription, root: Path) -> tuple[Stored, Stored]:
        from torchvision import datasets

        kind = getattr(datasets, dataset)

        def stored(train: bool) -> Stored:
            try:
                try:
                    part = kind(root, train=train, download=False)
                except RuntimeError:  # torchvision raises it if the files are missing
                    part = kind(root, train=train, download=True)
            except (OSError, RuntimeError, HTTPException, ValueError, AssertionError, EOFError) as error:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"data {description.name!r}: not in {root} and not to be downloaded ({reason}); "
                    "name the folder that holds it, in torchvision's layout, with --data-folder or EPSBENCH_DATA"
                ) from error
            images = torch.as_tensor(part.data)
            # MNIST stores (n, H, W); CIFAR stores (n, H, W, C).
            images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
            return images.contiguous(), torch.as_tensor(part.targets, dtype=torch.int64)

        return stored(train=True), stored(train=False)

    return read
