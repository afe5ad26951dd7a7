"""The balls an attack moves in. A norm starts a row, turns a gradient into a step, and projects.

Tensors are float32 and batched: images (N, C, H, W), ε of shape (N, 1, 1, 1) in pixel units.
Only tensor methods are used, so this module does not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class RowNoise(Protocol):
    """Random numbers keyed by row: what an example draws depends on no other row of the batch."""

    def uniform(self, *shape: int) -> Tensor:
        """(N, *shape) uniform numbers in [0, 1)."""
        ...

    def normal(self, *shape: int) -> Tensor:
        """(N, *shape) standard normal numbers."""
        ...


@dataclass(frozen=True)
class Norm(ABC):
    """A norm on perturbations δ, one value a row."""

    name: ClassVar[str]

    @abstractmethod
    def size(self, delta: Tensor) -> Tensor:
        """‖δ‖ of every row: (N, C, H, W) → (N,)."""

    @abstractmethod
    def start(self, noise: RowNoise, x: Tensor, eps: Tensor) -> Tensor:
        """A δ drawn uniformly from the ball of radius ε."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The unit step of steepest ascent under this norm; 0 where the whole gradient is 0."""

    @abstractmethod
    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        """The nearest δ within the ball of radius ε."""


@dataclass(frozen=True)
class LInf(Norm):
    """The largest change of any pixel."""

    name: ClassVar[str] = "linf"

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    def start(self, noise: RowNoise, x: Tensor, eps: Tensor) -> Tensor:
        return (2 * noise.uniform(*x.shape[1:]) - 1) * eps

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        return delta.clamp(-eps, eps)


@dataclass(frozen=True)
class L2(Norm):
    """The Euclidean length of the change."""

    name: ClassVar[str] = "l2"

    def size(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).norm(dim=1)

    def start(self, noise: RowNoise, x: Tensor, eps: Tensor) -> Tensor:
        # A uniform point of the ball: a uniform direction, and a radius whose d-th power is uniform.
        radius = noise.uniform(1).view(-1, 1, 1, 1) ** (1 / x[0].numel())
        return self.direction(noise.normal(*x.shape[1:])) * radius * eps

    def direction(self, gradient: Tensor) -> Tensor:
        # Divide by the largest entry first: squares of tiny gradients would underflow to 0.
        scaled = gradient / _per_row(LInf().size(gradient)).clamp_min(1e-38)
        return scaled / _per_row(self.size(scaled)).clamp_min(1e-12)

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        return delta * (eps / _per_row(self.size(delta)).clamp_min(1e-12)).clamp_max(1.0)


def _per_row(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


NORMS: dict[str, Norm] = {norm.name: norm for norm in (LInf(), L2())}
