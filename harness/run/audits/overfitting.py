"""Catastrophic overfitting: the model withstands one step, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from epsbench.harness.findings import Finding, found
from epsbench.harness.run.audits.history import HALF_STEP_AT_LEAST, MANY_AT_LEAST_MORE, ONE_STEP_AT_MOST
from epsbench.harness.run.training.watch import WATCHED

LEAST_GAP = 0.1  # near chance, two accuracies of few images may differ by less than this for no reason


def audit_training(curves: Mapping[str, Sequence[float]]) -> list[Finding]:
    """A finding where the trained model withstands one step and not many, with the epoch from which on it did.

    The signs and thresholds are those by which FGSM cells are held against PGD cells (`epsbench.harness.run.audits.history`):
    of the images right when clean, one step fools at most half, ten steps at least 40 % more, and half the one step at
    least half as many as all of it. Without the last, a smooth model that is merely weak at a large ε would be told
    as well. A model that got over its collapse by the last epoch is not told.
    """
    clean = curves.get("validation_accuracy", ())
    one, half, many = (curves.get(name, ()) for name in WATCHED)
    if not one:
        return []
    bent = [_bent(*accuracies) for accuracies in zip(clean, one, half, many, strict=True)]
    since = len(list(takewhile(bool, reversed(bent))))
    if not since:
        return []
    epoch = len(bent) - since + 1
    fact = (
        f"from epoch {epoch} of training on, one step of size ε leaves most of the images right and ten steps do not: "
        f"{one[-1]:.1%} and {many[-1]:.1%} of the validation images at the end, and half the step {half[-1]:.1%}"
    )
    evidence = {"epoch": epoch, "one_step": one[-1], "half_step": half[-1], "many_steps": many[-1]}
    return [found("catastrophic-overfitting", fact, **evidence)]


def _bent(clean: float, *accuracies: float) -> bool:
    """Whether one epoch shows it; ``accuracies`` are those of `WATCHED`, on the images right when clean."""
    if clean == 0:
        return False
    one, half, many = (1 - accuracy / clean for accuracy in accuracies)
    return (
        one <= ONE_STEP_AT_MOST
        and many - one >= max(MANY_AT_LEAST_MORE, LEAST_GAP / clean)
        and half >= HALF_STEP_AT_LEAST * one
    )
