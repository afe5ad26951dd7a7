"""Auto-PGD with a target class: towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from epsbench.attacks.apgd import APGD
from epsbench.attacks.losses import TARGETED_DLR, Loss, TargetedDLR
from epsbench.attacks.rows import Rows
from epsbench.attacks.targets import adapted_targets, check_targets, count_targets

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class APGDT(APGD):
    """Auto-PGD towards the most likely wrong classes, one after the other (Croce and Hein, 2020, section 4.2)."""

    version: ClassVar[int] = 1

    loss: Loss = TARGETED_DLR
    """A loss with a target: ``dlr-targeted`` or ``logit-difference``."""

    targets: int | None = None
    """How many classes are tried; None: 9, or all wrong ones where there are fewer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts != 1:
            raise ValueError(f"restarts is always 1 here, not {self.restarts}: every target is an attempt")
        if "target" not in self.loss.inputs:
            raise ValueError(f'its loss {type(self.loss).__name__} has no target; use apgd, or loss = "dlr-targeted"')
        check_targets(self.targets)

    def attempts(self, classes: int) -> int:
        return count_targets(self.targets, classes)

    def target(self, rows: Rows) -> Tensor:
        return rows.ranked(rows.attempt)

    def check(self, classes: int) -> None:
        super().check(classes)
        check_targets(self.targets, classes)

    def adapted(self, classes: int) -> dict[str, Any]:
        changes: dict[str, Any] = adapted_targets(self.targets, classes)
        if classes == 3 and isinstance(self.loss, TargetedDLR):
            changes["denominator"] = "z1 - z3"
        return changes
