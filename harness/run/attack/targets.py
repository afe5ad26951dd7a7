"""The examples to attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from epsbench.harness.run.noise import KeyedNoise, stream_key


@dataclass(frozen=True)
class Targets:
    """The examples to attack: those that the judge classifies correctly without an attack."""

    pixels: Callable[[Tensor], Tensor]
    """Maps int64 positions (k,) to images (k, C, H, W) in [0, 1] on the device."""

    labels: Tensor
    """Labels (n,)."""

    index: Tensor
    """Indices (n,) of the examples in their split; they key the noise."""

    logits: Tensor | None = None
    """The judge's logits (n, classes) at the images, where they are known."""

    expect: Callable[[Tensor], None] | None = None
    """Takes the positions (k,), on the CPU, that are asked for next; None where nothing has to be read for them."""

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Targets:
        """Images (n, C, H, W) that are in memory with their labels (n,), all of them."""
        return cls(lambda at: x[at], y, torch.arange(len(y), device=y.device))

    @property
    def streamed(self) -> bool:
        """Whether the images are read from a file, so that memory must not grow with their number."""
        return self.expect is not None

    def __len__(self) -> int:
        return len(self.labels)

    def noise(self, seed: int, positions: Tensor, attempt: Tensor, step: Tensor | None = None) -> KeyedNoise:
        """The noise of some rows: of the targets at these positions (k,), in these attempts and steps (k,)."""
        return KeyedNoise(seed, self.index[positions], attempt, step)

    def noise_key(self, seed: int, positions: Tensor, attempt: Tensor) -> Tensor:
        """What the noise of these rows has in common at all steps, (k,)."""
        return stream_key(seed, self.index[positions], attempt)

    def subset(self, positions: Tensor) -> Targets:
        """The targets at these positions (k,) alone. Their noise stays the same."""
        logits = None if self.logits is None else self.logits[positions]
        expect, order = self.expect, positions.cpu()
        return Targets(
            lambda at: self.pixels(positions[at]), self.labels[positions], self.index[positions], logits,
            None if expect is None else lambda at: expect(order[at]),
        )  # fmt: skip

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """``size`` images and their labels, for a trial; repeated where there are fewer targets."""
        at = torch.arange(size, device=self.labels.device) % len(self)
        return self.pixels(at), self.labels[at]
