"""Attacks are values, and a new one takes a few lines."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch

from epsbench.attacks.base import Attack, GradientAttack
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.mifgsm import MIFGSM
from epsbench.attacks.noise import Noise
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim


@pytest.mark.parametrize("attack", [FGSM(), PGD(), MIFGSM(), Noise()], ids=repr)
def test_attacks_are_frozen_hashable_values(attack):
    assert attack == dataclasses.replace(attack)
    assert hash(attack) == hash(dataclasses.replace(attack))
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.norm = None


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PGD(steps=0), "steps"),
        (lambda: PGD(restarts=0, random_start=True), "restarts"),
        (lambda: PGD(restarts=2), "random_start"),
        (lambda: PGD(relative_step_size=0.0), "relative_step_size"),
        (lambda: PGD(relative_step_size=float("nan")), "relative_step_size"),
        (lambda: FGSM(steps=2), "steps"),
    ],
)
def test_impossible_hyper_parameters_are_refused(make, name):
    with pytest.raises(ValueError, match=name):
        make()


@dataclass(frozen=True)
class SignSteps(GradientAttack):
    """The attack of the design, written as a user would: positional fields, no engine code."""

    steps: int = 10
    relative_step_size: float = 0.25

    def update(self, x_adv, gradient, eps, step):
        return x_adv + self.relative_step_size * eps * gradient.sign()


@dataclass(frozen=True)
class Unbounded(Attack):
    """Tries to leave the ball and the box; the engine must not let it."""

    def perturb(self, victim, x, y, eps, noise):
        gradient, _ = victim.gradient(x, y)
        return x + 100 * gradient.sign()


def outcomes(network, digits, attack):
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:80]
    targets = Targets(lambda at: x[right][at], y[right], right)
    cpu = torch.device("cpu")
    engine = Engine(Victim(frozen_copy(network, cpu), cpu, "float32", "plain"), Judge(network, cpu), targets, 32)
    return list(engine.run(attack, [Fraction(1, 10), Fraction(1, 5)], seed=0)), engine


def test_ten_lines_of_a_users_attack_equal_pgd(network, digits):
    mine, _ = outcomes(network, digits, SignSteps())
    ours, _ = outcomes(network, digits, PGD())
    for a, b in zip(mine, ours, strict=True):
        np.testing.assert_array_equal(a.fooled, b.fooled)


def test_no_attack_can_leave_its_ball_or_its_box(network, digits):
    ended, engine = outcomes(network, digits, Unbounded())
    for outcome in ended:
        assert outcome.size.max() <= float(outcome.eps) + 1e-6
        assert outcome.low.min() >= 0
        assert outcome.high.max() <= 1
    assert engine.victim.backwards == 2 * 80


def test_momentum_travels_with_its_row(network, digits):
    """A momentum of decay 0 is a plain step along ∇/‖∇‖₁: PGD's path, whatever slots the rows passed through."""
    plain, _ = outcomes(network, digits, PGD(steps=6, relative_step_size=0.1))
    momentum, _ = outcomes(network, digits, MIFGSM(steps=6, decay=0.0))
    for a, b in zip(plain, momentum, strict=True):
        np.testing.assert_array_equal(a.fooled, b.fooled)
