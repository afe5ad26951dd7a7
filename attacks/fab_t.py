"""FAB with a target class: one gradient a step, towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.fab import FAB
from epsbench.attacks.rows import Answer, Rows
from epsbench.attacks.targets import adapted_targets, check_targets, count_targets

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FABT(FAB):
    """FAB towards the most likely wrong classes (Croce and Hein, 2020, AutoAttack, section 5).

    Every target starts at the clean image, so no random number is drawn.
    """

    version: ClassVar[int] = 1

    query: ClassVar[str] = "gradient"

    targets: int | None = None
    """How many classes are tried; None: 9, or all wrong ones where there are fewer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts != 1:
            raise ValueError(f"restarts is always 1 here, not {self.restarts}: every target is an attempt")
        check_targets(self.targets)

    def attempts(self, classes: int) -> int:
        return count_targets(self.targets, classes)

    def target(self, rows: Rows) -> Tensor:
        return rows.ranked(rows.attempt)

    def check(self, classes: int) -> None:
        super().check(classes)
        check_targets(self.targets, classes)

    def adapted(self, classes: int) -> dict[str, Any]:
        return adapted_targets(self.targets, classes)

    def _first(self, rows: Rows) -> Tensor:
        return rows.x

    def _boundary(self, answer: Answer) -> tuple[Tensor, Tensor]:
        assert answer.gradient is not None
        return answer.gradient, answer.loss
