"""What a defense is: a training loss. Importing this loads no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from epsbench.attacks.base import LATER, Attack
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm, RowNoise

if TYPE_CHECKING:
    from torch import Tensor


class Trainee(Protocol):
    """A network in training, as a defense sees it. Images are (N, C, H, W) in [0, 1], labels (N,).

    Images to train on go through `loss` or `logits`, in train mode. The other methods are for making such images: they
    run the network in eval mode, so the batch statistics do not change, and restore its mode.
    """

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy, a float32 scalar, of the network in train mode."""
        ...

    def logits(self, x: Tensor, y: Tensor) -> Tensor:
        """Float32 logits (N, classes) of the network in train mode; ``y`` only counts which of them are right."""
        ...

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy of float32 logits (N, classes), with the label smoothing of the recipe."""
        ...

    def attack(self, attack: Attack, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Detached adversarial images within ``eps`` (pixel units) of ``x``."""
        ...

    def predict(self, x: Tensor) -> Tensor:
        """Detached float32 logits (N, classes)."""
        ...

    def gradient(self, x: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient at ``x``, float32 (N, C, H, W), of ``objective``: float32 logits (N, classes) to a scalar.

        The objective should sum over images: the gradients of a mean may round to 0 in half precision.
        """
        ...

    def noise(self, n: int) -> RowNoise:
        """Random numbers for ``n`` images, from the training's own generator."""
        ...


@dataclass(frozen=True)
class Defense(ABC):
    """A training loss; its fields are its hyper-parameters. ε is in pixel units.

    If it has a field ``eps`` above 0, accuracy at that ε is measured after every epoch
    (`epsbench.harness.run.audits.overfitting`), in the norm that its field ``norm`` names, or else L∞.
    """

    version: ClassVar[int | str] = 1

    @abstractmethod
    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        """The scalar loss to minimise for images ``x`` (N, C, H, W) in [0, 1] and labels ``y`` (N,)."""


def norm_field() -> Any:
    """The field of a defense that names the norm of its ball; at "linf" it is left out of ids."""
    return field(default="linf", metadata=LATER)


def norm_of(name: str) -> Norm:
    """The norm of this name. Raises `ValueError` for an unknown one."""
    if name not in NORMS:
        raise ValueError(f"norm is {' or '.join(NORMS)}, not {name!r}")
    return NORMS[name]


def check_eps(eps: Fraction, norm: str = "linf") -> None:
    """Raise `ValueError` unless this is a radius in pixel units under this norm."""
    norm_of(norm)
    if norm == "linf" and not 0 <= eps <= 1:
        raise ValueError(f"eps is in pixel units and lies between 0 and 1, not {eps}")
    if not eps >= 0:
        raise ValueError(f"eps is a radius in pixel units, at least 0, not {eps}")


def check_weight(name: str, value: float) -> None:
    """Raise `ValueError` unless this is a finite number of at least 0."""
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a number of at least 0, not {value}")


def check_above_zero(name: str, value: float) -> None:
    """Raise `ValueError` unless this is a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a number above 0, not {value}")
