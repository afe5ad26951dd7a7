"""A row that comes back to a point ends where it would have ended, after fewer answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from epsbench.attacks import FGSM, MIFGSM, PGD
from epsbench.attacks.losses import Margin
from epsbench.harness.run.attack import cycles
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU = torch.device("cpu")


@settings(max_examples=100, deadline=None)
@given(follows=st.lists(st.integers(0, 9), min_size=10, max_size=10), steps=st.integers(1, 90), first=st.integers(0, 1))
def test_every_row_ends_at_the_point_after_its_last_step(follows, steps, first):
    """Ten points and an arbitrary map between them, one row from each point; ``first`` answers are had before."""
    after = torch.tensor(follows)
    expected = torch.arange(10)
    for _ in range(first, steps):
        expected = after[expected]
    point, step = torch.arange(10.0).view(-1, 1, 1, 1), torch.full((10,), first)
    t, answers = cycles.remembered(point, step), 0
    while bool((step < steps).any()):
        over = step >= steps
        moved = after[point.flatten().long()].float().view_as(point).where(~over.view(-1, 1, 1, 1), point)
        skipped, seen = cycles.skip_rounds(t, moved, step + 1, steps, over)
        point, step, answers = moved, skipped.where(~over, step), answers + 1
        t |= seen
    assert torch.equal(point.flatten().long(), expected)
    assert bool((step == max(steps, first)).all())
    assert answers <= max(0, steps - first)
    if steps > 60:  # at most ten answers to the cycle, ten round it, and what it takes to remember a point of it
        assert answers < 60


@dataclass(frozen=True, kw_only=True)
class Other(PGD):
    """A user's own, of which nothing is known."""


def test_only_steps_of_one_size_without_memory_are_watched():
    assert cycles.watched(PGD(steps=50))
    assert cycles.watched(PGD(steps=50, loss=Margin(), random_start=True, restarts=3, step_size=Fraction(1, 50)))
    others = [
        PGD(steps=49), PGD(steps=100, step_rule="cosine"), PGD(steps=100, samples=2), MIFGSM(steps=100),
        Other(steps=100), FGSM(),
    ]  # fmt: skip
    assert not any(map(cycles.watched, others))


def outcomes_of(network, digits, attack, batch, poll, eps):
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:40]
    targets = Targets(lambda at: x[right][at], y[right], right)
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    return list(Engine(victim, Judge(network, CPU), targets, batch, keep=40, poll=poll).run(attack, eps, seed=0))


@pytest.mark.parametrize(("batch", "poll"), [(40, 1), (7, 1), (40, 3)])
@pytest.mark.parametrize("random_start", [False, True])
def test_verdicts_and_images_are_those_of_all_steps(network, digits, monkeypatch, batch, poll, random_start):
    attack = PGD(steps=150, random_start=random_start)
    eps = [Fraction(1, 50), Fraction(1, 20)]
    fewer = outcomes_of(network, digits, attack, batch, poll, eps)
    monkeypatch.setattr(cycles, "watched", lambda attack: False)
    whole = outcomes_of(network, digits, attack, batch, poll, eps)
    for actual, expected in zip(fewer, whole, strict=True):
        for name in ("fooled", "size", "low", "high", "predicted"):
            np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))
        # The judge sees the same images beside others, which may move the last bit of their logits.
        np.testing.assert_allclose(actual.loss, expected.loss, rtol=1e-5)
        assert torch.equal(actual.images, expected.images)
    assert sum(each.backwards for each in fewer) < 0.8 * sum(each.backwards for each in whole)


class Steep(torch.nn.Module):
    """Two classes by one plane that no ball reaches: every row goes to its corner, and stays there."""

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1).mean(1) + 1
        return torch.stack([value, torch.zeros_like(value)], 1)


def test_a_point_that_stays_ends_the_row():
    x = torch.rand(5, 1, 8, 8)
    targets = Targets(lambda at: x[at], torch.zeros(5, dtype=torch.int64), torch.arange(5))
    engine = Engine(Victim(Steep(), CPU, "float32", "plain"), Judge(Steep(), CPU), targets, 5)
    (outcome,) = engine.run(replace(PGD(), steps=1000), [Fraction(1, 10)], seed=0)
    assert not outcome.fooled.any()
    assert outcome.backwards <= 5 * 20
