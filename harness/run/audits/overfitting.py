"""Catastrophic overfitting, watched for while it happens: the model learns to withstand one step, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from numbers import Real

import torch
from torch import Tensor

from attacks.base import GradientAttack
from attacks.fgsm import FGSM
from attacks.pgd import PGD
from harness.records import Finding
from harness.run.audits.codes import found
from harness.run.audits.history import HALF_STEP_AT_LEAST, MANY_AT_LEAST_MORE, ONE_STEP_AT_MOST
from harness.run.data import Examples
from harness.run.memory import in_chunks, is_out_of_memory
from models.defenses import Defense, Trainee

FEWEST, MOST = 64, 512
ONE_IN = 200  # so many trained images pay for one that is watched: about 3 % of an epoch on single-step images
BATCH = 256
LEAST_GAP = 0.1  # near chance, two accuracies of few images may differ by less than this for no reason

ONE_STEP, HALF_STEP, MANY_STEPS = (f"validation_{name}_accuracy" for name in ("fgsm", "half_step", "pgd"))
# The name of a curve → the attack behind it, and its radius as a share of ε.
WATCHED: dict[str, tuple[GradientAttack, float]] = {
    ONE_STEP: (FGSM(), 1.0),
    HALF_STEP: (FGSM(), 0.5),
    MANY_STEPS: (PGD(steps=10), 1.0),
}


class Watch:
    """One step of size ε against half of it and against ten of ε / 4, on the same few images after every epoch.

    All start at the image and draw no random numbers: watching changes nothing, and two epochs differ by the model
    alone.
    """

    def __init__(self, x: Tensor, y: Tensor, eps: float) -> None:
        """Images ``x`` (N, C, H, W) in [0, 1], labels ``y`` (N,), and the ε in pixel units that is trained for."""
        self._x, self._y, self._eps = x, y, eps

    def measure(self, trainee: Trainee) -> dict[str, float]:
        """The share of the images right when clean and after the attack, by the name of its curve."""
        x, y = self._x, self._y

        def right(rows: slice) -> Tensor:
            stands = [trainee.predict(x[rows]).argmax(1) == y[rows]]
            for attack, share in WATCHED.values():
                attacked = trainee.attack(attack, x[rows], y[rows], share * self._eps)
                stands.append(stands[0] & (trainee.predict(attacked).argmax(1) == y[rows]))
            return torch.stack(stands[1:], dim=1)

        shares = in_chunks(right, len(y), BATCH).float().mean(0).tolist()
        return dict(zip(WATCHED, shares, strict=True))


def watch(defense: Defense, trainee: Trainee, validation: Examples, trained_images: int) -> Watch | None:
    """The watch over a defense that trains at an ε; None where there is none, or no gradient to follow.

    ``trained_images`` is the number of images in an epoch, of which the watch takes a small part in work.
    """
    eps = getattr(defense, "eps", None)
    radius = float(eps) if isinstance(eps, Real) else 0.0
    if not (math.isfinite(radius) and radius > 0):
        return None
    images = min(len(validation), MOST, max(FEWEST, trained_images // ONE_IN))
    x, y = validation.pixels(slice(0, images)), validation.labels[:images]
    try:
        trainee.attack(FGSM(), x[:1], y[:1], radius)
    except RuntimeError as error:  # the model cannot be differentiated: its cells carry a finding that says so
        if is_out_of_memory(error):
            raise
        return None
    return Watch(x, y, radius)


def audit_training(curves: Mapping[str, Sequence[float]]) -> list[Finding]:
    """A finding where the trained model withstands one step and not many, with the epoch from which on it did.

    The signs and thresholds are those by which FGSM cells are held against PGD cells (`harness.run.audits.history`):
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
