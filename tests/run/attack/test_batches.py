"""Attacks with a loop of their own: what they return is looked at, and every query is counted, whoever makes it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import nn

from epsbench.attacks.base import Attack
from epsbench.attacks.ensemble import Ensemble
from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU = torch.device("cpu")


def run(
    network: nn.Module,
    digits,
    attack: Attack,
    n: int = 40,
    batch: int = 64,
    eps: Fraction = Fraction(1, 10),
    seed: int = 0,
):
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:n]
    x, y = x[right], y[right]
    victim = Victim(frozen_copy(network, CPU), CPU, "float32", "plain")
    engine = Engine(victim, Judge(network, CPU), Targets(lambda at: x[at], y, right), batch, keep=n)
    (outcome,) = engine.run(attack, [eps], seed=seed)
    return outcome


def returning(make):
    """An attack that returns ``make(x, eps)``."""

    @dataclass(frozen=True, kw_only=True)
    class Odd(Attack):
        def perturb(self, victim, x, y, eps, noise):
            return make(x, eps)

    return Odd()


@pytest.mark.parametrize("seed", [5_000, 2**32 - 1])
def test_every_seed_of_a_suite_will_do_alone_and_in_an_ensemble(network, digits, seed):
    """Global generators are seeded for a batch, and NumPy's takes no seed above 2³² - 1."""
    alone = returning(lambda x, eps: (x + eps * torch.rand_like(x)).clamp(0, 1))
    for attack in (alone, Ensemble(parts=(FGSM(), alone))):
        first, again = (run(network, digits, attack, eps=Fraction(1, 100), seed=seed) for _ in range(2))
        assert torch.equal(first.images, again.images)
        assert not first.fooled.all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, eps: (x, x, x), "returned a tuple of 3"),
        (lambda x, eps: x.numpy(), "returned a ndarray"),
        (lambda x, eps: None, "returned None"),
        (lambda x, eps: x[:1], r"shape \(1, 1, 8, 8\)"),
        (lambda x, eps: x.flatten(1), r"shape \(40, 64\)"),
        (lambda x, eps: (255 * x).to(torch.uint8), "returned torch.uint8 images"),
        (lambda x, eps: x > 0.5, "returned torch.bool images"),
    ],
)
def test_what_is_no_batch_of_images_is_refused_by_name(network, digits, make, message):
    with pytest.raises(ValueError, match=f"attack Odd .*{message}|attack Odd {message}"):
        run(network, digits, returning(make))


def test_other_floating_types_are_taken(network, digits):
    for dtype in (torch.float64, torch.float16):
        assert run(network, digits, returning(lambda x, eps, dtype=dtype: (x + eps).to(dtype))).returned.no_pixels == 0


@pytest.mark.parametrize(
    ("make", "beyond", "no_pixels"),
    [
        (lambda x, eps: x + eps, 0, 0),
        (lambda x, eps: x + 1.5 * eps, 40, 0),
        (lambda x, eps: (x + eps).clamp(0, 1) * 255, 40, 40),
        (lambda x, eps: ((x + eps).clamp(0, 1) - 0.305) / 0.376, 40, 40),
    ],
)
def test_images_are_counted_where_they_were_before_they_were_projected(network, digits, make, beyond, no_pixels):
    returned = run(network, digits, returning(make), batch=16).returned
    assert (returned.images, returned.beyond_ball, returned.no_pixels) == (40, beyond, no_pixels)


@dataclass(frozen=True, kw_only=True)
class Library(Attack):
    """PGD as another library writes it: on a module, with autograd, in a mode that it asks for and puts back."""

    steps: int = 5

    def perturb(self, victim, x, y, eps, noise):
        assert isinstance(victim, nn.Module)
        assert next(victim.parameters()).device == x.device
        training = victim.training
        victim.train()
        assert not any(module.training for module in victim.modules())
        x_adv = x.clone().detach()
        for _ in range(self.steps):
            x_adv.requires_grad_(True)
            loss = nn.CrossEntropyLoss()(victim(x_adv), y)
            (gradient,) = torch.autograd.grad(loss, x_adv)
            x_adv = x_adv.detach() + 0.25 * eps * gradient.sign()
            x_adv = (x + (x_adv - x).clamp(-eps, eps)).clamp(0, 1).detach()
        victim.train(training)
        return x_adv


def test_another_librarys_attack_takes_the_victim_as_a_module_and_is_counted(network, digits):
    theirs = run(network, digits, Library())
    assert (theirs.forwards, theirs.backwards) == (5 * 40, 5 * 40)
    ours = run(network, digits, PGD(steps=5))
    # Ours stops at the first iterate that fools, theirs may walk on.
    assert theirs.fooled.sum() <= ours.fooled.sum() <= theirs.fooled.sum() + 2


def test_torchattacks_gets_the_same_number_as_ours(network, digits):
    torchattacks = pytest.importorskip("torchattacks")

    @dataclass(frozen=True, kw_only=True)
    class TorchAttacksPGD(Attack):
        def perturb(self, victim, x, y, eps, noise):
            radius = float(eps.flatten()[0])
            return torchattacks.PGD(victim, eps=radius, alpha=radius / 4, steps=10, random_start=False)(x, y)

    theirs, ours = run(network, digits, TorchAttacksPGD(), n=200), run(network, digits, PGD(steps=10), n=200)
    assert theirs.backwards == 10 * 200
    assert abs(int(theirs.fooled.sum()) - int(ours.fooled.sum())) <= 2
    assert theirs.short == 0


def test_a_gradient_at_the_image_that_is_returned_is_a_step_not_taken(network, digits):
    @dataclass(frozen=True, kw_only=True)
    class Short(Attack):
        def perturb(self, victim, x, y, eps, noise):
            x = x.clone().requires_grad_(True)
            nn.functional.cross_entropy(victim(x), y, reduction="sum").backward()
            return x.detach()

    outcome = run(network, digits, Short())
    assert (outcome.short, outcome.backwards) == (40, 40)


class Double(nn.Module):
    """A model that computes in float64 inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = frozen_copy(network, CPU).double()

    def forward(self, x):
        return self.network(x.double())


def test_the_judge_leaves_float64_as_it_is_and_raises_half_precision(network, digits):
    x, _ = digits
    expected = Judge(network, CPU).logits(x, 64)
    torch.testing.assert_close(Judge(Double(network), CPU).logits(x, 64), expected, rtol=1e-4, atol=1e-4)
    half = frozen_copy(network, CPU).to(torch.bfloat16)
    assert {tensor.dtype for tensor in Judge(half, CPU).network.parameters()} == {torch.float32}
    assert next(half.parameters()).dtype == torch.bfloat16
