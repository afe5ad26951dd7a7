"""Attacks that aim at one wrong class after the other."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epsbench.attacks.base import Attack, at_least_one
from epsbench.attacks.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

MOST_TARGETS = 9  # as many as AutoAttack tries


@dataclass(frozen=True, kw_only=True)
class Targeted(Attack, ABC):
    """The part of an attack that chooses targets: every attempt aims at the next most likely wrong class."""

    restarts: int = 1
    """Always 1: every target is an attempt."""

    targets: int | None = None
    """How many classes are tried; None: 9, or all wrong ones where there are fewer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if getattr(self, "target", None) is not None:
            raise ValueError("target is none of its parameters: it aims at `targets` classes, one after the other")
        if self.restarts != 1:
            raise ValueError(f"restarts is always 1 here, not {self.restarts}: every target is an attempt")
        if self.targets is not None:
            at_least_one(targets=self.targets)

    def attempts(self, classes: int) -> int:
        return min(self.targets or MOST_TARGETS, classes - 1)

    def aim(self, rows: Rows) -> Tensor:
        return rows.ranked(rows.attempt)

    def reads_clean_logits(self, classes: int) -> bool:
        return True

    def check(self, classes: int) -> None:
        super().check(classes)
        if self.targets is not None and self.targets >= classes:
            raise ValueError(
                f"targets = {self.targets} is beyond the {classes - 1} wrong classes of the data; give fewer"
            )

    def adapted(self, classes: int) -> dict[str, Any]:
        count = self.attempts(classes)
        return {"targets": count} if self.targets is None and count < MOST_TARGETS else {}
