"""Defenses under L2: the images that they train on lie in an L2 ball, and move along the gradient."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from epsbench.attacks.norms import NORMS
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.harness.run.training.watch import Watch, watch
from epsbench.models.defenses import TRADES, FGSMLoss, PGDBatch, PGDReplace

EPS = Fraction(1, 2)


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def batch(digits):
    return digits[0][:48] * 0.4 + 0.3, digits[1][:48]  # away from the box, whose corners would shorten steps


def in_training(network, seed=0):
    return ClassifierInTraining(network, torch.Generator().manual_seed(seed), "float32")


def test_fgsm_loss_steps_along_the_gradient(plain, batch):
    x, y = batch
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(plain(leaf), y, reduction="sum"), leaf)
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    adversarial = x + 0.1 * gradient / length
    defense = FGSMLoss(Fraction(1, 10), alpha=0.25, norm="l2")
    expected = 0.25 * F.cross_entropy(plain(x), y) + 0.75 * F.cross_entropy(plain(adversarial), y)
    torch.testing.assert_close(defense.loss(in_training(plain), x, y), expected)


@pytest.mark.parametrize("kind", [PGDBatch, PGDReplace])
def test_pgd_images_fill_the_l2_ball(plain, batch, kind):
    x, y = batch
    defense = kind(EPS, steps=5, norm="l2")
    copies = in_training(plain).attack(defense.attack(), x, y, float(EPS))
    sizes = (copies - x).flatten(1).norm(dim=1)
    assert sizes.max() <= float(EPS) + 1e-5
    assert sizes.median() > 0.9 * float(EPS)
    assert (copies - x).abs().max() > 0.05


def test_trades_images_fill_the_l2_ball_and_raise_the_divergence(plain, batch):
    x, _ = batch
    defense = TRADES(EPS, steps=5, norm="l2")
    moved = defense.perturb(in_training(plain), x)
    sizes = (moved - x).flatten(1).norm(dim=1)
    assert sizes.max() <= float(EPS) + 1e-5
    assert sizes.median() > 0.9 * float(EPS)


@pytest.mark.parametrize("kind", [FGSMLoss, PGDBatch, PGDReplace, TRADES])
def test_a_wrong_norm_or_radius_is_refused(kind):
    kind(Fraction(3), norm="l2")
    with pytest.raises(ValueError, match="norm is linf or l2"):
        kind(EPS, norm="l7")
    with pytest.raises(ValueError, match="between 0 and 1"):
        kind(Fraction(3))
    with pytest.raises(ValueError, match="at least 0"):
        kind(Fraction(-1), norm="l2")


def test_the_watch_looks_under_the_norm_of_the_defense(plain, batch, monkeypatch):
    x, y = batch
    seen = []
    attack = ClassifierInTraining.attack

    def spy(self, attacked, *rest):
        seen.append(attacked.norm)
        return attack(self, attacked, *rest)

    monkeypatch.setattr(ClassifierInTraining, "attack", spy)

    class Validation:
        labels = y

        def __len__(self):
            return len(y)

        def pixels(self, rows):
            return x[rows]

    for defense, norm in ((PGDBatch(EPS, norm="l2"), "l2"), (PGDBatch(EPS), "linf")):
        made = watch(defense, in_training(plain), Validation(), 100)
        assert isinstance(made, Watch)
        seen.clear()
        made.measure(in_training(plain))
        assert seen
        assert set(seen) == {NORMS[norm]}
