"""Defenses are losses: what each adds up, written out by hand."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.losses import KLToClean
from epsbench.attacks.pgd import PGD
from epsbench.attacks.plain import path
from epsbench.harness.run.attack.gradient import loss_gradient
from epsbench.harness.run.training.trainee import ClassifierInTraining
from epsbench.models.defenses import NFGSM, TRADES, Defense, FGSMLoss, NoDefense, PGDBatch, PGDReplace
from epsbench.models.defenses.trades import divergence


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


# A linear model of two classes: whatever the image, the best attack moves every pixel by ε against its weight.
WEIGHTS = torch.tensor([0.5, -1.0, 2.0, -0.25])
REACH = WEIGHTS.abs().sum()


@pytest.fixture
def linear():
    """Logits whose difference is w·x."""
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(4), WEIGHTS]))
    return nn.Sequential(nn.Flatten(), layer)


@pytest.fixture
def inner():
    """Images so far from the edges of the box that no attack here reaches them."""
    generator = torch.Generator().manual_seed(3)
    return 0.4 + 0.2 * torch.rand(16, 1, 2, 2, generator=generator), torch.arange(16) % 2


def margins(x, y):
    return (2 * y - 1) * (x.flatten(1) @ WEIGHTS)


class Seen(ClassifierInTraining):
    """Keeps the images that it is trained on."""

    def logits(self, x, y):
        self.images = x
        return super().logits(x, y)


@pytest.mark.parametrize(
    "defense",
    [PGDReplace(Fraction(1, 20), steps=8), FGSMLoss(Fraction(1, 20), alpha=0.0), NFGSM(Fraction(1, 20), noise=0.0)],
)
def test_the_worst_loss_of_a_linear_model_is_known(linear, inner, defense):
    expected = F.softplus(-(margins(*inner) - REACH / 20)).mean()
    torch.testing.assert_close(defense.loss(in_training(linear), *inner), expected)


def test_pgd_replace_leaves_the_clean_images_out(plain, batch):
    x, y = batch
    replace, beside = PGDReplace(Fraction(1, 10), steps=3), PGDBatch(Fraction(1, 10), steps=3)
    copies = in_training(plain, seed=5).attack(beside.attack(), x, y, 0.1)
    alone, both = (defense.loss(in_training(plain, seed=5), x, y) for defense in (replace, beside))
    torch.testing.assert_close(alone, F.cross_entropy(plain(copies), y))
    torch.testing.assert_close(both, (alone + F.cross_entropy(plain(x), y)) / 2)


def test_n_fgsm_steps_from_noise_and_is_not_clipped_to_the_ball(linear, inner):
    x, y = inner
    trainee = Seen(linear, torch.Generator().manual_seed(0), "float32")
    loss = NFGSM(Fraction(1, 20), noise=2.0, relative_step_size=0.5).loss(trainee, x, y)
    worst = -(2 * y - 1).view(-1, 1, 1, 1) * WEIGHTS.sign().view(1, 1, 2, 2)
    eta = trainee.images - x - 0.5 / 20 * worst
    assert eta.abs().max() <= 2 / 20 + 1e-6
    assert eta.abs().mean() == pytest.approx(1 / 20, rel=0.25)  # half of the bound, for it is uniform
    assert 1 / 20 < (trainee.images - x).abs().max() <= 2.5 / 20 + 1e-6
    torch.testing.assert_close(loss, F.softplus(-margins(trainee.images, y)).mean())


def test_n_fgsm_stays_in_the_box(plain, batch):
    trainee = Seen(plain, torch.Generator().manual_seed(0), "float32")
    NFGSM(Fraction(1, 2)).loss(trainee, *batch)
    assert 0 <= trainee.images.min() <= trainee.images.max() <= 1


def test_the_divergence_of_two_coins():
    p, q = torch.tensor([0.3, 0.7]), torch.tensor([0.6, 0.4])
    expected = (p * (p / q).log()).sum()
    torch.testing.assert_close(divergence(p.log()[None] + 3, q.log()[None] - 1), expected)
    torch.testing.assert_close(divergence(p.log().expand(5, 2), q.log().expand(5, 2)), 5 * expected)


def test_trades_reaches_an_end_of_the_ball_in_a_linear_model(linear, inner):
    """The divergence is convex in w·δ, so its maximum lies at one of the ends ±ε·Σ|w|."""
    x, y = inner
    eps = Fraction(1, 20)
    perturbed = TRADES(eps).perturb(in_training(linear), x)
    reached = (perturbed - x).flatten(1) @ WEIGHTS
    torch.testing.assert_close(reached.abs(), torch.full_like(reached, float(REACH) / 20))
    log_odds = x.flatten(1) @ WEIGHTS
    p, q = torch.sigmoid(log_odds), torch.sigmoid(log_odds + reached)
    bent = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    expected = F.softplus(-margins(x, y)).mean() + 6 * bent.mean()
    torch.testing.assert_close(TRADES(eps).loss(in_training(linear), x, y), expected)


def test_trades_follows_pgd_on_the_kl_up_to_rounding(plain, batch):
    """Its loop is apart from `epsbench.attacks.plain` because weights must come out bit for bit."""
    (x, y), eps = batch, Fraction(1, 20)
    network = plain.eval()
    perturbed = TRADES(eps, steps=4).perturb(in_training(plain, seed=1), x)
    noise = in_training(plain, seed=1).noise(len(x)).normal(*x.shape[1:])

    @dataclass(frozen=True, kw_only=True)
    class FromSmallNoise(PGD):
        def start(self, rows):
            return rows.x + 0.001 * noise, {}

    attack = FromSmallNoise(steps=4, loss=KLToClean(), random_start=True)
    radius, none = x.new_full((len(x), 1, 1, 1), float(eps)), torch.zeros_like(y)

    def ask(point, loss, *inputs):
        return loss_gradient(network, point, loss, inputs)

    *_, last = path(attack, ask, x, y, radius, none, lambda step: None, lambda: network(x).detach())
    # A sign may turn where a gradient is nearly 0; everywhere else the images are the same up to rounding.
    assert float(((perturbed - last).abs() > 1e-6).float().mean()) < 0.01


def test_trades_is_differentiated_through_both_predictions(linear, inner):
    x, y = inner
    TRADES(Fraction(1, 20), beta=2.0).loss(in_training(linear, seed=1), x, y).backward()
    gradient = linear[1].weight.grad.clone()
    perturbed = TRADES(Fraction(1, 20)).perturb(in_training(linear, seed=1), x)
    log_p, log_q = F.log_softmax(linear(x), 1), F.log_softmax(linear(perturbed), 1)
    loss = F.cross_entropy(linear(x), y) + 2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()
    torch.testing.assert_close(gradient, torch.autograd.grad(loss, linear[1].weight)[0])


def test_trades_of_beta_zero_is_plain_training(normalised, batch):
    """Batch statistics and random numbers included; and a small beta is near it."""
    trainee = in_training(normalised.train())
    twin = in_training(copy.deepcopy(normalised))
    assert TRADES(beta=0.0).loss(trainee, *batch).equal(NoDefense().loss(twin, *batch))
    assert trainee.generator.get_state().equal(twin.generator.get_state())
    assert trainee.network[1].running_mean.equal(twin.network[1].running_mean)
    near = TRADES(beta=1e-6).loss(trainee, *batch)
    torch.testing.assert_close(near, NoDefense().loss(twin, *batch), rtol=1e-4, atol=1e-4)


def test_trades_images_stay_in_the_ball_and_the_box(plain, batch):
    x, _ = batch
    for eps in (Fraction(0), Fraction(1, 5000), Fraction(3, 10)):  # the second is smaller than the noise at the start
        perturbed = TRADES(eps, steps=3).perturb(in_training(plain), x)
        assert (perturbed - x).abs().max() <= float(eps) + 1e-6
        assert 0 <= perturbed.min() <= perturbed.max() <= 1
        assert not perturbed.requires_grad


@pytest.mark.parametrize("training", [False, True])
def test_loss_and_batch_agree_without_batch_statistics_and_part_with_them(normalised, batch, training):
    """α = 1/2 weighs as the mean over [x, x_adv] does; in train mode each pass is normalised by its own images."""
    x, y = batch
    network = normalised.train(training)
    eps = Fraction(1, 10)
    adversarial = in_training(network).attack(FGSM(), x, y, float(eps))
    together = in_training(network).loss(torch.cat([x, adversarial]), torch.cat([y, y]))
    apart = FGSMLoss(eps, alpha=0.5).loss(in_training(network), x, y)
    assert torch.isclose(apart, together, rtol=1e-5) == (not training)
    assert (apart - together).abs() > 1e-3 or not training


@pytest.mark.parametrize(
    "defense", [FGSMLoss(), PGDBatch(steps=2), PGDReplace(steps=2), TRADES(steps=2), NFGSM()], ids=repr
)
def test_looking_for_images_moves_no_batch_statistics(normalised, batch, defense):
    """As many passes in train mode as the defense says, and every other in eval mode."""
    passes = {FGSMLoss: 2, TRADES: 2}
    network = normalised.train()
    before = int(network[1].num_batches_tracked)
    defense.loss(in_training(network), *batch)
    assert int(network[1].num_batches_tracked) - before == passes.get(type(defense), 1)
    assert network.training
    assert all(weight.grad is None for weight in network.parameters())


def test_a_defense_of_the_first_protocol_goes_on_working(plain, batch):
    class Mine(Defense):
        def loss(self, trainee, x, y):
            return trainee.loss(trainee.attack(FGSM(), x, y, 0.1), y)

    x, y = batch
    expected = FGSMLoss(Fraction(1, 10), alpha=0.0).loss(in_training(plain), x, y)
    torch.testing.assert_close(Mine().loss(in_training(plain), x, y), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSMLoss(alpha=1.5), "alpha is a weight between 0 and 1, not 1.5"),
        (lambda: FGSMLoss(eps=Fraction(8)), "lies between 0 and 1, not 8"),
        (lambda: PGDBatch(eps=Fraction(-1, 255)), "lies between 0 and 1"),
        (lambda: PGDBatch(steps=0), "steps must be at least 1"),
        (lambda: PGDBatch(relative_step_size=0.0), "relative_step_size must be above 0"),
        (lambda: PGDReplace(eps=Fraction(2)), "lies between 0 and 1"),
        (lambda: TRADES(eps=Fraction(2)), "lies between 0 and 1"),
        (lambda: TRADES(beta=-1.0), "beta must be a number of at least 0, not -1.0"),
        (lambda: TRADES(beta=float("nan")), "beta must be a number of at least 0, not nan"),
        (lambda: TRADES(steps=0), "steps must be at least 1, not 0"),
        (lambda: TRADES(relative_step_size=0.0), "relative_step_size must be a number above 0"),
        (lambda: NFGSM(eps=Fraction(-1, 2)), "lies between 0 and 1"),
        (lambda: NFGSM(noise=-0.5), "noise must be a number of at least 0"),
        (lambda: NFGSM(relative_step_size=float("inf")), "relative_step_size must be a number above 0, not inf"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
