"""Planted faults: attacks, named in suites as ``broken_attacks.py:Name``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from epsbench.attacks.base import Attack, GradientAttack, Network
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.norms.base import Norm, RowNoise
from epsbench.attacks.norms.linf import LInf
from epsbench.attacks.pgd import PGD


@dataclass(frozen=True, kw_only=True)
class Nothing(GradientAttack):
    """No step at all."""

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv


@dataclass(frozen=True, kw_only=True)
class NotANumber(GradientAttack):
    """A division by 0."""

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv + eps * gradient / (gradient - gradient) * 0


@dataclass(frozen=True, kw_only=True)
class Raises(GradientAttack):
    """Raises at its first step."""

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        raise ValueError("planted")


@dataclass(frozen=True, kw_only=True)
class InPlace(FGSM):
    """Writes into the image that it was given."""

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        x_adv += eps * gradient.sign()
        return x_adv


@dataclass(frozen=True, kw_only=True)
class WidensItsBall(Attack):
    """Writes into the ε that it was given."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        eps *= 3
        return x + eps * victim.gradient(x, y)[0].sign()


@dataclass(frozen=True, kw_only=True)
class FarAway(PGD):
    """Steps far out of the ball and of the box; the engine brings it back."""

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv + 50 * eps * gradient.sign()


@dataclass(frozen=True, kw_only=True)
class FarAwayAtOnce(Attack):
    """The same in the freer form."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        return x + 7 * victim.gradient(x, y)[0].sign()


@dataclass(frozen=True, kw_only=True)
class Overshoots(Attack):
    """Returns images a little further away than ε, as an attack that is given another ε does."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        return x + 1.5 * eps * victim.gradient(x, y)[0].sign()


@dataclass(frozen=True, kw_only=True)
class Bytes(Attack):
    """FGSM of a library that works on bytes."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        return (x + eps * victim.gradient(x, y)[0].sign()).clamp(0, 1) * 255


@dataclass(frozen=True, kw_only=True)
class Normalises(Attack):
    """FGSM that returns images as its network takes them inside."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        return ((x + eps * victim.gradient(x, y)[0].sign()).clamp(0, 1) - 0.305) / 0.376


@dataclass(frozen=True)
class Boundless(LInf):
    """A norm that bounds nothing."""

    def project(self, delta: Tensor, eps: Tensor) -> Tensor:
        return delta

    def size(self, delta: Tensor) -> Tensor:
        return super().size(delta) * 0


@dataclass(frozen=True, kw_only=True)
class OwnNorm(FarAway):
    """Brings a norm of its own that lets it out of the ball."""

    norm: Norm = field(default=Boundless(), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "norm", Boundless())


@dataclass(frozen=True, kw_only=True)
class Descends(PGD):
    """The wrong sign."""

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv - self.relative_step_size * eps * gradient.sign()


@dataclass(frozen=True, kw_only=True)
class TurnsBack(PGD):
    """Follows the gradient in small balls and flees it in large ones."""

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv + self.relative_step_size * eps * gradient.sign() * torch.where(eps > 0.2, -1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class OneStepShort(Attack):
    """Returns the images before its last update; with one step, the clean ones."""

    steps: int = 5

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        x_adv = before = x
        for _ in range(self.steps):
            before = x_adv
            moved = x_adv + 0.3 * eps * victim.gradient(x_adv, y)[0].sign()
            x_adv = (x + (moved - x).clamp(-eps, eps)).clamp(0, 1)
        return before


@dataclass(frozen=True, kw_only=True)
class Forgets(Attack):
    """Finds an adversarial image and returns another one."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        gradient = victim.gradient(x, y)[0]
        victim((x + eps * gradient.sign()).clamp(0, 1))
        return x - eps * gradient.sign()


@dataclass(frozen=True, kw_only=True)
class SkipsSome(Attack):
    """Gives up on one image in ten."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        tried = noise.uniform(1).view(-1, 1, 1, 1) > 0.1
        return torch.where(tried, x + eps * victim.gradient(x, y)[0].sign(), x)


@dataclass(frozen=True, kw_only=True)
class GivesUp(Attack):
    """One step; it returns the original wherever that does not fool the model."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        tried = (x + eps * victim.gradient(x, y)[0].sign()).clamp(0, 1)
        return torch.where((victim(tried).argmax(1) != y).view(-1, 1, 1, 1), tried, x)


@dataclass(frozen=True, kw_only=True)
class RandomSearch(Attack):
    """The best of many random corners of the ball: no gradient."""

    def perturb(self, victim: Network, x: Tensor, y: Tensor, eps: Tensor, noise: RowNoise) -> Tensor:
        best, fooled = x, torch.zeros_like(y, dtype=torch.bool)
        for _ in range(30):
            trial = (x + eps * (noise.uniform(*x.shape[1:]) - 0.5).sign()).clamp(0, 1)
            new = (victim(trial).argmax(1) != y) & ~fooled
            best, fooled = torch.where(new.view(-1, 1, 1, 1), trial, best), fooled | new
        return torch.where(fooled.view(-1, 1, 1, 1), best, x + eps)


@dataclass(frozen=True, kw_only=True)
class NeedsManyClasses(FGSM):
    """Its loss compares more logits than digits have classes."""

    least_classes: ClassVar[int] = 20


@dataclass(frozen=True, kw_only=True)
class Timid(PGD):
    """Means another ε, such as one in bytes: its steps are a hundred times too short."""

    def update(self, x_adv: Tensor, gradient: Tensor, eps: Tensor, step: Tensor) -> Tensor:
        return x_adv + 0.0025 * eps * gradient.sign()
