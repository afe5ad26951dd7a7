"""Steps along creases: exact where the boundary is nearest at a meeting of flat pieces, by independent solvers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import engine_of
from solvers import least_change
from torch import Tensor, nn

from epsbench.attacks import FABT
from epsbench.attacks.apgd_search import APGDSearch
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.fmn import FMN
from epsbench.attacks.losses import Margin
from epsbench.attacks.norms import NORMS
from epsbench.attacks.pdpgd import PDPGD
from epsbench.harness.run.attack.creases import Half, meeting, scaled


class Crease(nn.Module):
    """Class 1 where the images are beyond two planes at once."""

    def __init__(self, normals: Tensor, offsets: Tensor) -> None:
        super().__init__()
        self.normals, self.offsets = nn.Parameter(normals), offsets

    def forward(self, x: Tensor) -> Tensor:
        z = (x.flatten(1) @ self.normals.T - self.offsets).amin(1)
        return torch.stack([-z, z], 1)


def crease() -> tuple[Crease, Tensor, Tensor]:
    """Such a network, images that it has in class 0, and their labels. Some of their pixels are at faces of the box."""
    generator = torch.Generator().manual_seed(4)
    normals = torch.randn(2, 25, generator=generator) + 0.4
    x = (torch.rand(10, 1, 5, 5, generator=generator) * 0.8 - 0.1).clamp(0, 1)
    offsets = (x.flatten(1) @ normals.T).amax(0) + 0.5
    return Crease(normals, offsets), x, torch.zeros(10, dtype=torch.int64)


@pytest.mark.parametrize(
    "attack",
    [DDN(), APGDSearch(loss=Margin(), searches=8),
     *(FMN(norm=NORMS[norm]) for norm in ("linf", "l2")), FMN(steps=60, norm=NORMS["l1"]),
     *(DeepFool(norm=NORMS[norm]) for norm in ("linf", "l2")),
     FABT(goal="smallest", steps=20), PDPGD(steps=100)],
    ids=lambda attack: f"{type(attack).__name__.lower()}-{attack.norm.name}",
)  # fmt: skip
def test_the_nearest_point_of_a_crease_is_reached(attack):
    network, x, y = crease()
    a, b = network.normals.detach().double().numpy(), network.offsets.double().numpy()
    exact = np.array([
        least_change(attack.norm.name, each, a, b - a @ each) for each in x.flatten(1).double().numpy()
    ])  # fmt: skip
    coarse, fine = (
        next(engine_of(network, x, y).run(replace(attack, creases=most), [Fraction(1)], seed=0)).distances
        for most in (0, 20)
    )
    assert (fine >= exact * (1 - 1e-5)).all(), fine / exact
    assert (fine <= exact * (1 + 1e-3)).all(), fine / exact
    assert (fine <= coarse).all()
    assert (coarse > exact * 1.01).any(), coarse / exact  # else this shows nothing


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_least_change_in_two_half_spaces_is_that_of_a_solver(norm):
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(12, 1, 3, 3, generator=generator)
    normals = torch.randn(2, 12, 1, 3, 3, generator=generator)
    normals[1, :3] = 0.5 * normals[0, :3]  # parallel planes, of which one is beyond the other
    one, other = (scaled(NORMS[norm], Half(n, -0.1 - 0.3 * torch.rand(12, generator=generator))) for n in normals)
    kept, change = meeting(NORMS[norm], x, one, other)
    assert ((x + change >= -1e-6) & (x + change <= 1 + 1e-6)).all()
    for i in range(12):
        a = torch.stack([one.normal[i], other.normal[i]]).flatten(1).double().numpy()
        b = -torch.stack([one.value[i], other.value[i]]).double().numpy()
        exact = least_change(norm, x[i].flatten().double().numpy(), a, b)
        if np.isfinite(exact):
            assert (a @ change[i].flatten().double().numpy() >= b - 1e-5).all()
            assert float(NORMS[norm].size(change[i : i + 1])) == pytest.approx(exact, rel=1e-4)
            alone = kept.normal[i].flatten().double().numpy()[None], -kept.value[i : i + 1].double().numpy()
            assert least_change(norm, x[i].flatten().double().numpy(), *alone) == pytest.approx(exact, rel=1e-3)


def test_steps_along_creases_are_counted_and_never_lead_farther(network, digits):
    x, y = (each[:40] for each in digits)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    x, y = x[right], y[right]
    outcomes = []
    for most in (0, 12):
        engine = engine_of(network, x, y)
        engine.keep = len(x)
        engine.clean_logits()
        asked, judged = engine.victim.backwards, engine.judge.forwards
        (outcome,) = engine.run(FMN(steps=12, norm=NORMS["linf"], creases=most), [Fraction(1)], seed=0)
        assert engine.victim.backwards - asked == outcome.backwards
        assert engine.judge.forwards - judged == outcome.judge_forwards
        with torch.no_grad():
            assert (network(outcome.images).argmax(1) != y).numpy()[outcome.fooled].all()
        outcomes.append(outcome)
    coarse, fine = outcomes
    assert (fine.distances <= coarse.distances).all()
    assert fine.distances.mean() < coarse.distances.mean()
    assert coarse.backwards < fine.backwards <= coarse.backwards + 12 * len(x)


def test_changes_that_are_counted_take_no_steps_along_creases(network, digits):
    x, y = (each[:10] for each in digits)
    attack = FMN(steps=5, norm=NORMS["l0"], creases=20, polish=0)
    assert next(engine_of(network, x, y).run(attack, [Fraction(5)], seed=0)).backwards == 50
    without, along = (
        next(engine_of(network, x, y).run(replace(attack, polish=8, creases=c), [Fraction(5)], seed=0)).backwards
        for c in (0, 20)
    )
    assert without == along > 50


def test_a_negative_number_of_steps_along_creases_is_refused():
    with pytest.raises(ValueError, match="creases must be at least 0, not -1"):
        DDN(creases=-1)
