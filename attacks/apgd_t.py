"""Auto-PGD with a target class: towards one wrong class after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from epsbench.attacks.apgd import APGD
from epsbench.attacks.losses import TARGETED_DLR, Loss, TargetedDLR
from epsbench.attacks.targets import Targeted


@dataclass(frozen=True, kw_only=True)
class APGDT(Targeted, APGD):
    """Auto-PGD towards the most likely wrong classes, one after the other (Croce and Hein, 2020, section 4.2)."""

    version: ClassVar[int] = 1

    loss: Loss = TARGETED_DLR
    """A loss with a target: ``dlr-targeted`` or ``logit-difference``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "target" not in self.loss.inputs:
            raise ValueError(f'its loss {type(self.loss).__name__} has no target; use apgd, or loss = "dlr-targeted"')

    def adapted(self, classes: int) -> dict[str, Any]:
        untargeted = classes == 3 and isinstance(self.loss, TargetedDLR)
        return super().adapted(classes) | ({"denominator": "z1 - z3"} if untargeted else {})
