"""Examples whose images stay off the device: in memory beside it, or in a file that is read by position."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

import numpy as np
import torch
from torch import Tensor

from epsbench.harness.plan.data.decoded import WorkFolder
from epsbench.harness.plan.data.pixels import Images, PixelFile, taken
from epsbench.harness.run.data.arrays import shared
from epsbench.harness.run.data.examples import Examples


class StreamedExamples(Examples):
    """Examples that go to the device a batch at a time. The pixels are bit for bit those of `Examples`.

    Slices are read in their order, so with each one the next is read ahead; other orders are announced by `expect`.
    """

    reads_ahead = True

    def __init__(self, images: Images, labels: Tensor, brightest: int) -> None:
        """``images`` is (n, C, H, W), of uint8 or float32; ``labels`` int64 (n,), on the device."""
        super().__init__(torch.empty(0, *images.shape[1:]), labels, brightest)
        self._images = images

    @property
    def images(self) -> Images:
        """The images, (n, C, H, W)."""
        return self._images

    def __getitem__(self, rows: slice) -> StreamedExamples:
        """Only these examples; nothing is read."""
        return StreamedExamples(taken(self._images, rows), self.labels[rows], self._brightest)

    def to(self, device: torch.device) -> StreamedExamples:
        """The same images, whose batches go to another device."""
        return StreamedExamples(self._images, self.labels.to(device), self._brightest)

    def pixels(self, index: Tensor | slice | None = None) -> Tensor:
        """As `Examples.pixels`, read now."""
        if isinstance(index, slice) and index.start is not None and index.stop is not None:
            self._expect(slice(index.stop, 2 * index.stop - index.start))
        rows = slice(None) if index is None else index.cpu().numpy() if isinstance(index, Tensor) else index
        raw = shared(self._images[rows]).to(self.device)
        # The division makes a copy of what lies in memory; what was read from a file is a copy already.
        return raw.to(torch.float32, copy=raw.is_floating_point()).div_(self._brightest)

    def expect(self, index: Tensor) -> None:
        """Have the system read these images ahead, where they are in a file."""
        self._expect(index.cpu().numpy())

    def _expect(self, index: object) -> None:
        if isinstance(self._images, PixelFile):
            self._images.expect(index)  # type: ignore[arg-type]


def streamed(parts: Iterable[np.ndarray], n: int, labels: Tensor, where: str) -> StreamedExamples:
    """``n`` uint8 images that come as arrays (k, C, H, W), from a file that goes with the last choice of its images.

    Raises `InputError`, naming them as ``where``, where there is no room for the file.
    """
    work = WorkFolder(where)
    file: IO[bytes] | None = None
    try:
        for part in parts:
            file = file or work.begin("images", (n, *part.shape[1:]), part.dtype)
            work.append(file, part)
    finally:
        if file is not None:
            file.close()
    return StreamedExamples(PixelFile(work.path / "images.npy"), labels, 255)
