"""The polish of smallest distances: exact on a curved boundary, never farther, and counted."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import engine_of
from scipy.optimize import brentq
from torch import Tensor, nn

from epsbench.attacks import FABT
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.fmn import FMN
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pdpgd import PDPGD


class Ellipsoid(nn.Module):
    """Class 0 inside an ellipsoid around the middle of the box, whose half axes are ``axes`` (1, 4, 4)."""

    def __init__(self, axes: Tensor) -> None:
        super().__init__()
        self.axes = nn.Parameter(axes)

    def forward(self, x: Tensor) -> Tensor:
        z = ((x - 0.5) / self.axes).flatten(1).square().sum(1) - 1
        return torch.stack([-z, z], 1)


def to_the_ellipsoid(offset: np.ndarray, axes: np.ndarray) -> float:
    """The distance of a point outside: p_i = a_i² o_i / (a_i² + t) lies on the ellipsoid for one t > 0."""
    t = brentq(lambda t: np.sum((axes * offset / (axes**2 + t)) ** 2) - 1, 0, 100)
    return float(np.linalg.norm(offset - axes**2 * offset / (axes**2 + t)))


def from_outside() -> tuple[nn.Module, Tensor, Tensor, np.ndarray]:
    """An ellipsoid, images outside it with their class 1, and their distances from it."""
    generator = torch.Generator().manual_seed(3)
    axes = 0.1 + 0.2 * torch.rand(1, 4, 4, generator=generator)
    offset = torch.randn(10, 1, 4, 4, generator=generator)
    offset = offset / offset.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * 0.45
    pairs = offset.flatten(1).double().numpy(), axes.flatten().double().numpy()
    exact = np.array([to_the_ellipsoid(each, pairs[1]) for each in pairs[0]])
    return Ellipsoid(axes), 0.5 + offset, torch.ones(10, dtype=torch.int64), exact


@pytest.mark.parametrize(
    "attack",
    [DeepFool(polish=20, norm=NORMS["l2"]), FMN(polish=20, norm=NORMS["l2"]), FABT(goal="smallest", norm=NORMS["l2"])],
    ids=repr,
)
def test_a_curved_boundary_is_reached_at_its_nearest_point(attack):
    network, x, y, exact = from_outside()
    coarse, fine = (next(engine_of(network, x, y).run(replace(attack, polish=p), [Fraction(1)], seed=0)).distances
                    for p in (0, attack.polish))  # fmt: skip
    assert (fine >= exact * (1 - 1e-5)).all(), fine / exact
    assert (fine <= exact * (1 + 1e-4)).all(), fine / exact
    assert (fine <= coarse * (1 + 2e-5)).all()


@pytest.mark.parametrize(
    "attack",
    [DDN(steps=15), PDPGD(steps=40), *(DeepFool(norm=NORMS[n]) for n in ("l2", "linf")),
     *(FMN(steps=12, norm=NORMS[n]) for n in ("l1", "l2", "linf"))],
    ids=lambda attack: f"{type(attack).__name__}-{attack.norm.name}",
)  # fmt: skip
def test_polished_images_are_never_farther_fool_and_are_counted(network, digits, attack):
    x, y = (each[:40] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    outcomes = []
    for polish in (0, 20):
        engine = engine_of(network, x, y)
        engine.keep = len(x)
        engine.clean_logits()
        asked, judged = engine.victim.backwards, engine.judge.forwards
        (outcome,) = engine.run(replace(attack, polish=polish), [Fraction(100)], seed=0)
        assert engine.victim.backwards - asked == outcome.backwards
        assert engine.judge.forwards - judged == outcome.judge_forwards
        assert engine.victim.forwards == outcome.forwards
        with torch.no_grad():
            assert (network(outcome.images).argmax(1) != y).numpy()[outcome.fooled].all()
        outcomes.append(outcome)
    coarse, fine = outcomes
    assert (fine.distances <= coarse.distances * (1 + 2e-3)).all()  # a line may cross the boundary more than once
    assert fine.distances.mean() < coarse.distances.mean()
    assert coarse.backwards < fine.backwards <= coarse.backwards + 20 * len(x)


def test_changes_that_are_counted_are_polished_with_so_many_gradients_at_most(network, digits):
    x, y = (each[:10] for each in digits)
    plain, polished = (
        next(engine_of(network, x, y).run(FMN(steps=5, norm=NORMS["l0"], polish=p), [Fraction(5)], seed=0))
        for p in (0, 20)
    )
    assert plain.backwards == 50
    assert 50 < polished.backwards <= 50 + 20 * 10
    assert (polished.distances <= plain.distances).all()


def test_a_negative_polish_is_refused():
    with pytest.raises(ValueError, match="polish must be at least 0, not -1"):
        DDN(polish=-1)


def test_a_round_takes_one_gradient_and_no_verdict(network, digits):
    x, y = (each[:40] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    few, many = (
        next(engine_of(network, x, y).run(FMN(norm=NORMS["l2"], polish=p), [Fraction(9)], seed=0)) for p in (2, 12)
    )
    assert many.backwards > few.backwards + 2 * len(x)
    assert many.judge_forwards <= few.judge_forwards + 4 * len(x)  # the search at the end may be a little longer
