"""What a defense is: a training loss. Torch is imported only inside."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Protocol

from epsbench.attacks.base import GradientAttack
from epsbench.attacks.norms.base import RowNoise

if TYPE_CHECKING:
    from torch import Tensor


class Trainee(Protocol):
    """A network in training, as a defense sees it. Images are (N, C, H, W) in [0, 1], labels (N,).

    What is trained on goes through `loss` or `logits`, in train mode. What only looks for images goes through the
    others: they see the network in eval mode, so batch statistics do not move, and leave its mode as it was.
    """

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy, a float32 scalar, of the network in train mode."""
        ...

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Float32 logits (N, classes) of the network in train mode; ``y`` only counts which of them are right."""
        ...

    def attack(self, attack: GradientAttack, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Detached adversarial images within ``eps`` (pixel units) of ``x``."""
        ...

    def predict(self, x: Tensor) -> Tensor:
        """Detached float32 logits (N, classes)."""
        ...

    def gradient(self, x: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient at ``x``, float32 (N, C, H, W), of ``objective``: float32 logits (N, classes) to a scalar.

        Let the objective sum over images: a mean makes gradients small enough to vanish in half precision.
        """
        ...

    def noise(self, n: int) -> RowNoise:
        """Random numbers for ``n`` images, from the training's own generator."""
        ...


@dataclass(frozen=True)
class Defense(ABC):
    """A training loss; its fields are its hyper-parameters. ε is in pixel units and the norm is L∞.

    A defense with a field ``eps`` above 0 is watched at that ε while it trains (`epsbench.harness.run.audits.overfitting`).
    """

    version: ClassVar[int | str] = 1

    @abstractmethod
    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        """The scalar to descend for images ``x`` (N, C, H, W) in [0, 1] and labels ``y`` (N,)."""


def check_eps(eps: Fraction) -> None:
    """Raise `ValueError` unless this is a radius in pixel units."""
    if not 0 <= eps <= 1:
        raise ValueError(f"eps is in pixel units and lies between 0 and 1, not {eps}")


def check_weight(name: str, value: float) -> None:
    """Raise `ValueError` unless this is a finite number of at least 0."""
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a number of at least 0, not {value}")


def check_above_zero(name: str, value: float) -> None:
    """Raise `ValueError` unless this is a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a number above 0, not {value}")
