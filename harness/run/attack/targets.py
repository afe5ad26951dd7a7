"""The examples to attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from epsbench.harness.run.noise import KeyedNoise


@dataclass(frozen=True)
class Targets:
    """The examples to attack: those the judge gets right on the clean image.

    ``pixels`` maps int64 positions (k,) to images (k, C, H, W) in [0, 1] on the device; ``labels`` has
    shape (n,); ``index`` (n,) are the examples' indices in their split, which key the noise.
    """

    pixels: Callable[[Tensor], Tensor]
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def noise(self, seed: int, positions: Tensor, restart: Tensor) -> KeyedNoise:
        return KeyedNoise(seed, self.index[positions], restart)
