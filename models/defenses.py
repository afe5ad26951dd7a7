"""How a classifier is trained to withstand attacks: a defense is a training loss. Torch is imported only inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from attacks.base import GradientAttack
from attacks.fgsm import FGSM
from attacks.pgd import PGD

if TYPE_CHECKING:
    from torch import Tensor


class Trainee(Protocol):
    """A network in training, as a defense sees it. Images are (N, C, H, W) in [0, 1], labels (N,)."""

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy, a float32 scalar, of the network in train mode."""
        ...

    def attack(self, attack: GradientAttack, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Detached adversarial images within ``eps`` (pixel units) of ``x``.

        They are crafted in eval mode, so batch statistics do not move; the network's mode is restored.
        """
        ...


@dataclass(frozen=True)
class Defense(ABC):
    """A training loss; its fields are its hyper-parameters. ε is in pixel units and the norm is L∞."""

    @abstractmethod
    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        """The scalar to descend for images ``x`` (N, C, H, W) in [0, 1] and labels ``y`` (N,)."""


@dataclass(frozen=True)
class NoDefense(Defense):
    """Ordinary training: the cross-entropy of the clean images."""

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        return trainee.loss(x, y)


@dataclass(frozen=True)
class FGSMLoss(Defense):
    """α·J(x) + (1 − α)·J(x + ε·sign ∇J(x)) (Goodfellow et al., 2015, section 6)."""

    eps: Fraction = Fraction(8, 255)
    alpha: float = 0.5

    def __post_init__(self) -> None:
        _check_eps(self.eps)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is a weight between 0 and 1, not {self.alpha}")

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        adversarial = trainee.attack(FGSM(), x, y, float(self.eps))
        return self.alpha * trainee.loss(x, y) + (1 - self.alpha) * trainee.loss(adversarial, y)


@dataclass(frozen=True)
class PGDBatch(Defense):
    """The batch and its PGD copies, concatenated, under the ordinary loss (after Madry et al., 2018).

    ``relative_step_size`` is in units of ε.
    """

    eps: Fraction = Fraction(8, 255)
    steps: int = 7
    relative_step_size: float = 0.25
    random_start: bool = True

    def __post_init__(self) -> None:
        _check_eps(self.eps)
        self.attack()

    def attack(self) -> PGD:
        """The attack that makes the copies. Raises `ValueError` where its parameters make none."""
        return PGD(steps=self.steps, relative_step_size=self.relative_step_size, random_start=self.random_start)

    def loss(self, trainee: Trainee, x: Tensor, y: Tensor) -> Tensor:
        import torch

        adversarial = trainee.attack(self.attack(), x, y, float(self.eps))
        return trainee.loss(torch.cat([x, adversarial]), torch.cat([y, y]))


def _check_eps(eps: Fraction) -> None:
    if not 0 <= eps <= 1:
        raise ValueError(f"eps is in pixel units and lies between 0 and 1, not {eps}")
