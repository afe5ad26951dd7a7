"""What the engine is asked to do: one attack at several ε."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from epsbench.attacks.base import Attack


@dataclass(frozen=True)
class AttackRun:
    """One attack at several ε, under one seed."""

    attack: Attack
    """The attack, with its norm."""

    eps: tuple[Fraction, ...]
    """The radii in pixel units, ascending."""

    seed: int
    """Keys the noise of every row, together with its example and attempt."""

    attempts: int = 1
    """How many attempts are made on an image that withstands."""

    early_stop: bool = True
    """Whether an image that fools is not attacked any further."""

    last_only: bool = False
    """Whether only the image after the last step is judged, as when the images are made on another model."""
