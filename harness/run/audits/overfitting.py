"""Catastrophic overfitting in training: the model withstands one gradient step, and not many small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from epsbench.harness.findings import Finding, finding
from epsbench.harness.run.audits.history import (
    HALF_STEP_AT_LEAST,
    HALF_STEP_FOOLS,
    MANY_AT_LEAST_MORE,
    ONE_STEP_AT_MOST,
    SIGNIFICANT,
)
from epsbench.harness.run.training.watch import FEWEST, WATCHED
from epsbench.harness.statistics import mcnemar_exact

LEAST_GAP = 0.1  # in accuracy; near chance, accuracies on few images differ by less for no reason


def audit_training(curves: Mapping[str, Sequence[float]], images: int = FEWEST) -> list[Finding]:
    """A finding if at the end of training the model withstands one step and not many. It names the epoch of the onset.

    Signs and thresholds are those of `epsbench.harness.run.audits.history`, which compares FGSM with PGD cells. Of the
    images that are classified correctly without an attack, one step fools at most half, ten steps at least 40 % more,
    and half a step at least half as many as a whole one. Without the third sign, a smooth model that is merely weak at
    a large ε would be reported too. A model that recovered by the last epoch is not reported. ``curves`` are those of
    a training, by name, measured on ``images`` validation images at least: on few images the gap is chance.
    """
    clean = curves.get("validation_accuracy", ())
    one, half, many = (curves.get(name, ()) for name in WATCHED)
    if not one:
        return []
    bent = [_bent(images, *accuracies) for accuracies in zip(clean, one, half, many, strict=True)]
    since = len(list(takewhile(bool, reversed(bent))))
    if not since:
        return []
    epoch = len(bent) - since + 1
    fact = (
        f"from epoch {epoch} of training on, most images withstand one step of size ε and not ten steps: at the end "
        f"accuracy is {one[-1]:.1%} under one step, {half[-1]:.1%} under half a step and {many[-1]:.1%} under ten"
    )
    evidence = {"epoch": epoch, "one_step": one[-1], "half_step": half[-1], "many_steps": many[-1]}
    return [finding("catastrophic-overfitting", fact, **evidence)]


def _bent(images: int, clean: float, *accuracies: float) -> bool:
    """Whether one epoch shows all three signs; ``accuracies`` are those of `WATCHED`, in that order."""
    if clean == 0:
        return False
    one, half, many = (1 - accuracy / clean for accuracy in accuracies)
    return (
        one <= ONE_STEP_AT_MOST
        and many - one >= max(MANY_AT_LEAST_MORE, LEAST_GAP / clean)
        and half >= max(HALF_STEP_FOOLS, HALF_STEP_AT_LEAST * one)
        and mcnemar_exact(0, round((accuracies[0] - accuracies[2]) * images)) < SIGNIFICANT
    )
