"""Random noise, the baseline of every attack that uses the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import Attack, State
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """One point drawn uniformly from the ball of radius ε around the image. It asks nothing."""

    version: ClassVar[str] = "5cd9cadc02b2d4bf"

    query: ClassVar[str] = "nothing"

    def start(self, rows: Rows) -> tuple[Tensor, State]:
        return rows.x + self.norm.start(rows.noise, rows.x, rows.eps), {}

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        raise TypeError("noise takes no step")

    def budget(self) -> int:
        return 0
