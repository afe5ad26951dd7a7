"""How many target classes a targeted attack tries, one after the other."""

from __future__ import annotations

from typing import Any

MOST_TARGETS = 9  # as many as AutoAttack tries


def count_targets(targets: int | None, classes: int) -> int:
    """How many target classes there are: ``targets``, or 9, or all wrong classes where there are fewer."""
    return min(targets or MOST_TARGETS, classes - 1)


def check_targets(targets: int | None, classes: int | None = None) -> None:
    """Raise `ValueError` where there are fewer wrong classes than ``targets``."""
    if targets is not None and targets < 1:
        raise ValueError(f"targets must be at least 1, not {targets}")
    if targets is not None and classes is not None and targets >= classes:
        raise ValueError(f"targets = {targets} is beyond the {classes - 1} wrong classes of the data; give fewer")


def adapted_targets(targets: int | None, classes: int) -> dict[str, Any]:
    """The number of targets for the record, where it is not the usual one."""
    count = count_targets(targets, classes)
    return {"targets": count} if targets is None and count < MOST_TARGETS else {}
