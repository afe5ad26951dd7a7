"""What the engine is asked to do: one attack at several ε."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from epsbench.attacks.base import Attack, GradientAttack


@dataclass(frozen=True)
class AttackRun:
    """One attack at several ε, under one seed."""

    attack: Attack | GradientAttack
    """The attack, with its norm."""

    eps: tuple[Fraction, ...]
    """The radii in pixel units, ascending."""

    seed: int
    """Keys the noise of every row, together with its example and restart."""

    early_stop: bool = True
    """Whether an image that fools is not attacked any further."""

    last_only: bool = False
    """Whether only the image after the last step is judged, as when the images are made on another model."""

    @property
    def restarts(self) -> int:
        """How often the attack starts over on an image that withstood."""
        return self.attack.restarts if isinstance(self.attack, GradientAttack) else 1
