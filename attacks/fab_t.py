"""FAB with a target class: one gradient a step, towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from epsbench.attacks.fab import FAB
from epsbench.attacks.rows import Answer, Rows
from epsbench.attacks.targets import Targeted

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FABT(Targeted, FAB):
    """FAB towards the most likely wrong classes (Croce and Hein, 2020, AutoAttack, section 5).

    Every target starts at the clean image, so no random number is drawn.
    """

    version: ClassVar[int] = 3

    query: ClassVar[str] = "gradient"

    def _first(self, rows: Rows) -> Tensor:
        return rows.x

    def _boundary(self, answer: Answer) -> tuple[Tensor, Tensor]:
        assert answer.gradient is not None
        return answer.gradient, answer.loss
