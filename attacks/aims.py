"""What a targeted attack aims at, and the form that its loss then takes. Nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epsbench.attacks.losses import DLR, CrossEntropy, LogitDifference, Loss, Margin, TargetedCrossEntropy, TargetedDLR

if TYPE_CHECKING:
    from torch import Tensor

    from epsbench.attacks.rows import Rows

AIMS = ("least-likely", "random")
"""Targets that a suite can name besides the number of a class."""

_TARGETED: dict[Loss, Loss] = {
    CrossEntropy(): TargetedCrossEntropy(),
    Margin(): LogitDifference(),
    DLR(): TargetedDLR(),
}

# A start draws four times at most. The target takes a later draw, so that the two are independent.
_DRAWS_BEFORE = 8


def require_aim(target: str | int) -> None:
    """Raise `ValueError` for what is no target."""
    if isinstance(target, str) and target not in AIMS:
        raise ValueError(f'target must be "least-likely", "random" or the number of a class, not {target!r}')
    if not isinstance(target, str) and target < 0:
        raise ValueError(f"target must be the number of a class, which counts from 0, not {target}")


def require_class(target: str | int | None, classes: int, loss: Loss) -> None:
    """Raise `ValueError` for a class that data with so many classes does not have, or that the loss cannot lead to."""
    if target == "least-likely":
        require_lead(loss, classes)
    if isinstance(target, int) and target >= classes:
        raise ValueError(f"target = {target} is no class: the data has classes 0 to {classes - 1}")


def require_lead(loss: Loss, classes: int) -> None:
    """Raise `ValueError` for a loss that is constant towards one of so many classes: the least likely one."""
    if classes == 3 and isinstance(loss, TargetedDLR):
        raise ValueError(
            "its loss TargetedDLR is constant towards the least likely of three classes, so its gradient leads "
            'nowhere; set loss = "logit-difference"'
        )


def targeted_form(loss: Loss) -> Loss:
    """The loss that rises towards the target class. Raises `ValueError` where a loss has no such form."""
    if "target" in loss.inputs:
        return loss
    if loss not in _TARGETED:
        raise ValueError(f"its loss {type(loss).__name__} has no targeted form; leave target out, or use cross-entropy")
    return _TARGETED[loss]


def aimed_at(target: str | int, rows: Rows) -> Tensor:
    """The class (N,) that each row aims at; it is never its label.

    A random target is drawn anew for every attempt. An image of class ``target`` itself aims at the wrong class that
    is most likely without an attack.
    """
    classes = rows.logits.shape[1]
    if target == "least-likely":
        return rows.ranked(rows.attempt * 0 + (classes - 2))
    if target == "random":
        noise = rows.noise
        for _ in range(_DRAWS_BEFORE):
            noise.uniform(1)
        drawn = (noise.uniform(1).flatten() * (classes - 1)).long().clamp_max(classes - 2)
        return drawn + (drawn >= rows.y)
    fixed = rows.y * 0 + int(target)
    return fixed.where(fixed != rows.y, rows.ranked(rows.attempt * 0))
