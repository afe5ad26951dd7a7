"""The checks for plugins: what comes with epsbench passes, and every planted fault is caught with its own message."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import epsbench
import epsbench.testing
from epsbench.attacks import APGD, FGSM, PGD, Attack, BatchAttack, GradientAttack, Noise
from epsbench.attacks.norms import NORMS
from epsbench.models.defenses import NFGSM, TRADES, Defense, FGSMLoss, NoDefense, PGDBatch, PGDReplace


@pytest.mark.parametrize(
    "attack", [FGSM(), PGD(steps=3, random_start=True), APGD(steps=5), Noise(), PGD(steps=2, norm=NORMS["l2"])]
)
def test_attacks_that_come_along_pass(attack):
    epsbench.testing.check_attack(attack, eps=0.5 if attack.norm.name == "l2" else "8/255")


class OverTheBatch(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * (gradient - gradient.mean(0)).sign() * (gradient.sum() / len(gradient)).sign()


class Global(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * torch.randn_like(gradient)


class Nothing(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv


class Outside(BatchAttack):
    def perturb(self, victim, x, y, eps, noise):
        return x + 3 * eps


class NotFinite(BatchAttack):
    def perturb(self, victim, x, y, eps, noise):
        return x / 0 * 0


class Breaks(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        raise KeyError("step")


class GlobalInALoop(BatchAttack):
    def perturb(self, victim, x, y, eps, noise):
        return (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)


class AnyRow(GradientAttack):
    """Halves the steps of all rows once one of them has taken a step: rows of one batch are in step, those of a run
    are not."""

    def budget(self):
        return 4

    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps / (8 if bool((step > 1).any()) else 4) * gradient.sign()


class AnyRowNearby(Attack):
    """The same for the smallest distance."""

    goal = "smallest"

    def budget(self):
        return 4

    def step(self, rows, answer, state):
        return answer.x + (0.01 if bool((rows.step > 1).any()) else 0.1) * answer.gradient.sign(), state


class AsksIf(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * gradient.sign() if step > 0 else x_adv


class Exits(GradientAttack):
    def update(self, x_adv, gradient, eps, step):
        raise SystemExit(0)


class AsksForNothing(GradientAttack):
    query = "logit"

    def update(self, x_adv, gradient, eps, step):
        return x_adv


class WithAState(GradientAttack):
    def budget(self):
        return 3

    def update(self, x_adv, gradient, eps, step):
        raise NotImplementedError


class NewState(WithAState):
    def move(self, x_adv, gradient, eps, step, state):
        velocity = state.get("velocity", 0) + gradient
        return x_adv + eps * velocity.sign(), {"velocity": velocity}


class LostState(WithAState):
    def state(self, x):
        return {"velocity": torch.zeros_like(x)}

    def move(self, x_adv, gradient, eps, step, state):
        return x_adv + eps * gradient.sign(), {}


class OtherState(WithAState):
    def state(self, x):
        return {"velocity": x.new_zeros(len(x), 1, 1, 1)}

    def move(self, x_adv, gradient, eps, step, state):
        return x_adv + eps * gradient.sign(), {"velocity": (state["velocity"] + gradient).double()}


class NoDecorator(GradientAttack):
    steps: int = 5

    def update(self, x_adv, gradient, eps, step):
        return x_adv + eps * gradient.sign()


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (GlobalInALoop(), "GlobalInALoop uses a global random generator"),
        (AnyRow(), "AnyRow gives 6 of 12 images another result beside rows of other steps"),
        (AnyRowNearby(), "AnyRowNearby gives 6 of 12 images another result beside rows of other steps"),
        (AsksIf(), r"ambiguous \(test_testing.py, line \d+\); a Python `if` asks for one truth value"),
        (Exits(), r"Exits raises SystemExit: 0 \(test_testing.py, line \d+\)"),
        (AsksForNothing(), 'its query must be "gradient", "logits" or "jacobian", not \'logit\''),
        (NewState(), "has state 'velocity' after a step and not before the first one"),
        (LostState(), "leaves out state 'velocity' after a step"),
        (OtherState(), r"from \(N, \*\(1, 1, 1\)\) torch.float32 to \(N, \*\(3, 8, 8\)\) torch.float64"),
        (NoDecorator(), r"NoDecorator has fields \(steps\) and is no dataclass, so they are ignored: put @dataclass"),
        (OverTheBatch(), "a row depends on the other rows"),
        (Global(), "uses a global random generator"),
        (Nothing(), "changes no pixel"),
        (Outside(), "12 of 12 images outside the ball"),
        (NotFinite(), "NaN or infinite"),
        (Breaks(), "Breaks raises KeyError: 'step'"),
    ],
)
def test_faulty_attacks_are_caught(attack, message):
    with pytest.raises(AssertionError, match=message):
        epsbench.testing.check_attack(attack)


@pytest.mark.parametrize("defense", [NoDefense(), FGSMLoss(), PGDBatch(), PGDReplace(), TRADES(), NFGSM()])
def test_defenses_that_come_along_pass(defense):
    epsbench.testing.check_defense(defense)


def defense_of(loss):
    return type("Mine", (Defense,), {"loss": loss})()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda self, t, x, y: 3.0, "returns a float; return a scalar tensor"),
        (lambda self, t, x, y: t.logits(x, y).logsumexp(1), r"a tensor of shape \(12,\); return a scalar"),
        (lambda self, t, x, y: t.loss(x, y) / 0, "is inf"),
        (lambda self, t, x, y: t.loss(x, y).detach(), "has no gradient"),
        (lambda self, t, x, y: t.loss(x, y) * 0, "reaches no weight"),
        (lambda self, t, x, y: t.loss(x + 0.1 * torch.rand_like(x), y), "differs between two calls"),
        (lambda self, t, x, y: (t.network.eval(), t.loss(x, y))[1], "leaves the network in evaluation mode"),
        (lambda self, t, x, y: t.lss(x, y), "Mine raises AttributeError"),
    ],
)
def test_faulty_defenses_are_caught(loss, message):
    with pytest.raises(AssertionError, match=message):
        epsbench.testing.check_defense(defense_of(loss))


def test_models(network):
    epsbench.testing.check_model(network, shape=(1, 8, 8))


def test_a_model_that_an_attack_is_checked_on_stays_as_it_is(network):
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network.train()
    try:
        epsbench.testing.check_attack(PGD(steps=2), model=network, x=x)
        assert network.training
    finally:
        network.eval()
    epsbench.testing.check_attack(PGD(steps=2), model=lambda images: network(images), x=x)


@pytest.mark.parametrize(
    ("attack", "arguments", "message"),
    [
        (PGD, {}, r"PGD is a class; give an object: PGD\(\)"),
        (nn.Flatten(), {}, "is a Flatten; give an attack"),
        (PGD(), {"eps": "8/0"}, "eps: .*divides by zero"),
        (PGD(), {"model": nn.Linear(3, 2)}, "the model raises RuntimeError"),
        (PGD(), {"model": nn.Flatten}, "the model is a type; give a torch.nn.Module"),
        (PGD(), {"x": torch.zeros(0, 3, 8, 8)}, r"x is a tensor of shape \(0, 3, 8, 8\); give images"),
        (PGD(), {"x": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "of torch.uint8; give images .* as floats"),
    ],
)
def test_what_an_attack_cannot_be_checked_with(attack, arguments, message):
    with pytest.raises(AssertionError, match=message):
        epsbench.testing.check_attack(attack, **arguments)


@pytest.mark.parametrize(
    ("defense", "message"), [(TRADES, "TRADES is a class; give an object"), (PGD(), "is a PGD; give a defense")]
)
def test_what_is_no_defense(defense, message):
    with pytest.raises(AssertionError, match=message):
        epsbench.testing.check_defense(defense)


class BatchStatistics(nn.Module):
    """Depends on the other images of the batch, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc((x - x.mean(0)).flatten(1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (BatchStatistics(), "batch"),
        (nn.Sequential(nn.Flatten(), nn.Linear(9, 10)), "the model raises RuntimeError"),
        (lambda x: (x.flatten(1),), "the model gives tuple"),
        (nn.Flatten, "the model is a type; give a torch.nn.Module or a function"),
        (lambda x: x.flatten(1)[:, :10].softmax(1) + torch.rand(len(x), 10), "."),
    ],
)
def test_faulty_models_are_caught(model, message):
    with pytest.raises(AssertionError, match=message):
        epsbench.testing.check_model(model, shape=(1, 8, 8))


def test_the_package_loads_it_when_it_is_used():
    assert epsbench.testing.check_attack is epsbench.harness.testing.check_attack
