"""What a norm is."""

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

    version: ClassVar[int | str] = 1

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


def per_row(values: Tensor) -> Tensor:
    """One value a row, (N,), in a shape that broadcasts over images: (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)
