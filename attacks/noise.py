"""Random noise, the baseline of every attack that uses the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import Attack, Network
from epsbench.attacks.norms.base import RowNoise

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """One point drawn uniformly from the ball of radius ε around the image."""

    version: ClassVar[str] = "5cd9cadc02b2d4bf"

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        return x + self.norm.start(noise, x, eps)
