"""Defenses are losses: what each adds up, written out by hand."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.fgsm import FGSM
from harness.run.training import ClassifierInTraining
from models.defenses import FGSMLoss, NoDefense, PGDBatch


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.fixture
def batch(digits):
    return digits[0][:48], digits[1][:48]


def in_training(network, seed=0):
    return ClassifierInTraining(network, torch.Generator().manual_seed(seed), "float32")


def test_none_is_the_mean_cross_entropy(plain, batch):
    torch.testing.assert_close(NoDefense().loss(in_training(plain), *batch), F.cross_entropy(plain(batch[0]), batch[1]))


def test_fgsm_loss_of_alpha_one_is_the_plain_loss(plain, batch):
    defense = FGSMLoss(Fraction(1, 10), alpha=1.0)
    torch.testing.assert_close(defense.loss(in_training(plain), *batch), NoDefense().loss(in_training(plain), *batch))


def test_fgsm_loss_weighs_both_images(plain, batch):
    x, y = batch
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(plain(leaf), y), leaf)
    adversarial = (x + 0.1 * gradient.sign()).clamp(0, 1)
    expected = 0.3 * F.cross_entropy(plain(x), y) + 0.7 * F.cross_entropy(plain(adversarial), y)
    torch.testing.assert_close(FGSMLoss(Fraction(1, 10), alpha=0.3).loss(in_training(plain), x, y), expected)


def test_pgd_batch_is_the_mean_over_the_concatenation(plain, batch):
    x, y = batch
    defense = PGDBatch(Fraction(1, 10), steps=3)
    copies = in_training(plain, seed=5).attack(defense.attack(), x, y, 0.1)
    expected = (F.cross_entropy(plain(x), y) + F.cross_entropy(plain(copies), y)) / 2
    torch.testing.assert_close(defense.loss(in_training(plain, seed=5), x, y), expected)
    assert expected > F.cross_entropy(plain(x), y)


def test_copies_stay_in_the_ball_and_the_box(plain, batch):
    x, y = batch
    copies = in_training(plain).attack(PGDBatch(Fraction(3, 10)).attack(), x, y, 0.3)
    assert (copies - x).abs().max() <= 0.3 + 1e-6
    assert 0 <= copies.min() <= copies.max() <= 1
    assert not copies.requires_grad


@pytest.fixture
def normalised(network):
    """A network with batch norm that a test may spoil."""
    network = copy.deepcopy(network)
    network.zero_grad(set_to_none=True)
    return network


@pytest.mark.parametrize("mode", [True, False])
def test_crafting_leaves_the_network_as_it_was(normalised, batch, mode):
    network = normalised.train(mode)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    in_training(network).attack(FGSM(), *batch, 0.1)
    assert network.training is mode
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_batch_statistics_move_with_the_loss_alone(normalised, batch):
    x, y = batch
    network, twin = normalised.train(), copy.deepcopy(normalised).train()
    copies = in_training(twin, seed=1).attack(PGDBatch(steps=2).attack(), x, y, 8 / 255)
    twin(torch.cat([x, copies]))
    PGDBatch(steps=2).loss(in_training(network, seed=1), x, y)
    torch.testing.assert_close(network[1].running_mean, twin[1].running_mean)
    assert network[1].num_batches_tracked == twin[1].num_batches_tracked


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSMLoss(alpha=1.5), "alpha is a weight between 0 and 1, not 1.5"),
        (lambda: FGSMLoss(eps=Fraction(8)), "lies between 0 and 1, not 8"),
        (lambda: PGDBatch(eps=Fraction(-1, 255)), "lies between 0 and 1"),
        (lambda: PGDBatch(steps=0), "steps must be at least 1"),
        (lambda: PGDBatch(relative_step_size=0.0), "relative_step_size must be above 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
