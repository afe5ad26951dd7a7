"""Watches for catastrophic overfitting while a classifier trains."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from epsbench.attacks.base import GradientAttack
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.machine.memory import in_chunks, is_out_of_memory
from epsbench.models.defenses import Defense, Trainee

FEWEST, MOST = 64, 512

ONE_IN = 200  # so many trained images pay for one that is watched: about 3 % of an epoch on single-step images

BATCH = 256

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
