"""No attack: for the accuracy of a model on its images as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.base import Attack, State
from epsbench.attacks.rows import Answer, Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NoAttack(Attack):
    """The images as they are: clean, or corrupted where the suite says so. Its ε is always 0."""

    version: ClassVar[int] = 1

    query: ClassVar[str] = "nothing"

    def step(self, rows: Rows, answer: Answer, state: State) -> tuple[Tensor, State]:
        raise TypeError("no attack takes no step")

    def budget(self) -> int:
        return 0
