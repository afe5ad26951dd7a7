"""Networks whose logits hardly change: the distance is that of the same network with larger logits."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import Plane, engine_of
from solvers import fewest_changes, least_change

from epsbench.attacks import Attack
from epsbench.attacks.flat import FLAT, lift
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pdpgd import PDPGD
from epsbench.attacks.rows import Answer
from epsbench.attacks.sigma_zero import SigmaZero

ATTACKS: list[Attack] = [PDPGD(), *(SigmaZero(norm=NORMS[name]) for name in ("l0", "l0-pixels"))]


@pytest.mark.parametrize("scale", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{type(attack).__name__.lower()}-{attack.norm.name}")
def test_the_distance_does_not_depend_on_the_size_of_the_logits(attack, scale):
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(3, 2, 4, generator=generator), torch.rand(4, 3, 2, 4, generator=generator)
    score = (x * w).flatten(1).sum(1)
    network, gap = Plane(w, float(score.max()) + 2.0, scale), float(score.max()) + 2.0 - score.double().numpy()
    name, flat = attack.norm.name, w.double().numpy()
    exact = [
        fewest_changes(image, flat, g, name == "l0-pixels") if name != "l1"
        else least_change(name, image.ravel(), flat.reshape(1, -1), np.array([g]))
        for image, g in zip(x.double().numpy(), gap, strict=True)
    ]  # fmt: skip
    (outcome,) = engine_of(network, x, torch.zeros(4, dtype=torch.int64)).run(attack, [Fraction(1)], seed=0)
    ratio = outcome.distances / np.array(exact)
    assert (ratio >= 1 - 1e-5).all(), ratio
    assert (ratio <= 1 + 1e-4).all(), ratio


def test_only_a_gradient_below_the_threshold_is_lifted():
    """Rows whose gradient is large, or 0, keep theirs to the bit; later answers change nothing."""
    gradient = torch.tensor([2.0, FLAT, FLAT / 8, 0.0]).view(4, 1, 1, 1).expand(-1, 1, 2, 2)
    zero = torch.zeros(4, dtype=torch.int64)

    class Asked:
        step = torch.tensor([0, 0, 0, 0])

    answer = Answer(gradient, zero, torch.zeros(4, 2), gradient, None, ())
    first = lift(Asked(), answer, torch.ones(4))
    assert first.tolist() == [1.0, 1.0, 8.0, 1.0]
    Asked.step = torch.tensor([1, 2, 3, 4])
    assert lift(Asked(), answer, torch.full((4,), 5.0)).tolist() == [5.0] * 4
