"""Watches a training for catastrophic overfitting: after every epoch, a few validation images are attacked.

Under catastrophic overfitting (Wong et al., 2020) a classifier withstands the single steps that it is trained on, and
neither smaller steps nor several of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real

import torch
from torch import Tensor

from epsbench.attacks.base import Attack
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.base import Norm
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.data.examples import Examples
from epsbench.harness.run.machine.memory import in_chunks, is_out_of_memory
from epsbench.models.defenses import Defense, Trainee

FEWEST, MOST = 64, 512  # images that are attacked

# One image is attacked for so many trained ones. That costs about 3 % of an epoch of single-step training (hardware,
# torch version and n not recorded, not measured again).
ONE_IN = 200

BATCH = 256

ONE_STEP, HALF_STEP, MANY_STEPS = (f"validation_{name}_accuracy" for name in ("fgsm", "half_step", "pgd"))

WATCHED: dict[str, tuple[Attack, float]] = {
    ONE_STEP: (FGSM(), 1.0),
    HALF_STEP: (FGSM(), 0.5),
    MANY_STEPS: (PGD(steps=10), 1.0),
}
"""The curves of the watch by name: the attack whose accuracy each shows, and its radius as a share of ε."""


class Watch:
    """The accuracy under one step of size ε, one of ε / 2 and ten of ε / 4, on the same few images after every epoch.

    All attacks start at the image and draw no random numbers. So the watch does not change the training, and two epochs
    differ only by the model.
    """

    def __init__(self, x: Tensor, y: Tensor, eps: float, norm: Norm = NORMS["linf"]) -> None:
        """Images ``x`` (N, C, H, W) in [0, 1], labels ``y`` (N,), and the ball of the defense: ε in pixel units."""
        self._x, self._y, self._eps = x, y, eps
        self._attacks = [(replace(attack, norm=norm), share) for attack, share in WATCHED.values()]

    def measure(self, trainee: Trainee) -> dict[str, float]:
        """By curve, the share of the images that are classified correctly both clean and after the attack."""
        x, y = self._x, self._y

        def correct(rows: slice) -> Tensor:
            clean_and_attacked = [trainee.predict(x[rows]).argmax(1) == y[rows]]
            for attack, share in self._attacks:
                attacked = trainee.attack(attack, x[rows], y[rows], share * self._eps)
                clean_and_attacked.append(clean_and_attacked[0] & (trainee.predict(attacked).argmax(1) == y[rows]))
            return torch.stack(clean_and_attacked[1:], dim=1)

        shares = in_chunks(correct, len(y), BATCH).float().mean(0).tolist()
        return dict(zip(WATCHED, shares, strict=True))


def watch(defense: Defense, trainee: Trainee, validation: Examples, trained_images: int) -> Watch | None:
    """The watch for a defense; None if the defense has no ε, or the model cannot be differentiated.

    ``trained_images`` is the number of training images. It sets how many validation images are attacked.
    """
    eps = getattr(defense, "eps", None)
    radius = float(eps) if isinstance(eps, Real) else 0.0
    if not (math.isfinite(radius) and radius > 0):
        return None
    images = min(len(validation), MOST, max(FEWEST, trained_images // ONE_IN))
    x, y = validation.pixels(slice(0, images)), validation.labels[:images]
    try:
        trainee.attack(FGSM(), x[:1], y[:1], radius)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None
    named = getattr(defense, "norm", "linf")
    norm = NORMS[named] if isinstance(named, str) and named in NORMS else NORMS["linf"]
    return Watch(x, y, radius, norm)
