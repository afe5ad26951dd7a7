"""Gradients of all classes at once, and what half precision makes of attacks that end at the boundary."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import CPU, Plane, engine_of, targets_of
from torch import Tensor, nn

from epsbench.attacks import FAB
from epsbench.attacks.ddn import DDN
from epsbench.attacks.deepfool import DeepFool
from epsbench.attacks.fmn import FMN
from epsbench.attacks.losses import LogitDifference, Margin
from epsbench.attacks.norms import NORMS
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.gradient import loss_jacobian
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.victim import Victim


class _OwnBackward(torch.autograd.Function):
    """The identity, whose backward pass looks at a number: torch cannot take several classes through it at once."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient if gradient.abs().sum().item() >= 0 else -gradient


class OwnBackward(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(_OwnBackward.apply(x))


def victim_of(network: nn.Module, precision: str = "float32") -> Victim:
    return Victim(frozen_copy(network, CPU), CPU, precision, "plain")


@pytest.mark.parametrize("n", [4, 40, 200])
def test_classes_that_go_back_together_give_the_gradients_of_one_after_the_other(network, digits, n):
    x, y = (each[:n] for each in digits)
    call = victim_of(network).bare_logits
    (together, logits, classes), (apart, again, same) = (
        loss_jacobian(call, x, LogitDifference(), y, 9, together=way) for way in (True, False)
    )
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(logits, again)
    assert torch.equal(classes, same)
    assert not (classes == y[:, None]).any()


def test_large_images_go_back_with_fewer_classes_at_a_time(network, digits, monkeypatch):
    x, y = (each[:4] for each in digits)
    call, seen = victim_of(network).bare_logits, []
    expected = loss_jacobian(call, x, LogitDifference(), y, 9)
    grad = torch.autograd.grad

    def watched(*given, **options):
        seen.append(len(given[2]))
        return grad(*given, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    monkeypatch.setattr("epsbench.harness.run.attack.gradient._NUMBERS_TOGETHER", 4 * x.numel())
    gradients, logits, classes = loss_jacobian(call, x, LogitDifference(), y, 9)
    assert seen == [4, 4, 1]
    torch.testing.assert_close(gradients, expected[0], rtol=1e-5, atol=1e-7)
    assert torch.equal(logits, expected[1])
    assert torch.equal(classes, expected[2])


def test_a_layer_that_cannot_take_several_classes_gets_one_after_the_other(network, digits):
    x, y = (each[:5] for each in digits)
    victim = victim_of(OwnBackward(network))
    with pytest.raises(RuntimeError, match="item"):
        loss_jacobian(victim.bare_logits, x, LogitDifference(), y, 9)
    gradients, _, _ = victim.jacobian(x, LogitDifference(), y, 9)
    expected, _, _ = victim_of(network).jacobian(x, LogitDifference(), y, 9)
    torch.testing.assert_close(gradients, expected)
    assert not victim.together  # it is not tried again
    assert (victim.forwards, victim.backwards) == (5, 45)


def test_the_logits_of_a_jacobian_and_of_an_exact_query_are_float32_in_half_precision(network, digits):
    x, y = (each[:6] for each in digits)
    victim, exact = victim_of(network, "bf16"), victim_of(network)
    expected_gradient, expected = exact.query(x, Margin(), y)
    assert not torch.equal(victim.query(x, Margin(), y)[1], expected)
    gradient, logits = victim.exact_query(x, Margin(), y)
    assert torch.equal(logits, expected)
    assert torch.equal(gradient, expected_gradient)
    before = victim.forwards
    assert torch.equal(victim.jacobian(x, LogitDifference(), y, 9)[1], expected)
    assert victim.forwards - before == 2 * 6


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
def test_a_chosen_class_is_the_nearest_of_all_and_the_gradients_of_others_are_not_kept(monkeypatch, precision, norm):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.ReLU(), nn.Linear(30, 100))
    x = torch.rand(6, 3, 4, 4)
    victim, attack = victim_of(network, precision), FAB(norm=NORMS[norm])
    y = network(x).argmax(1)
    every, logits, classes = victim.jacobian(x, LogitDifference(), y, 99)
    values = logits.gather(1, classes) - logits.gather(1, y[:, None])
    sizes = torch.stack([attack.norm.dual(each) for each in every])
    at = (values.abs() / sizes).argmin(1)
    seen = []

    def score(*given):
        seen.append(tuple(given[1].shape))
        return attack.score(*given)

    monkeypatch.setattr("epsbench.harness.run.attack.gradient._NUMBERS_TOGETHER", 40 * x.numel())
    gradient, again, chosen = victim.jacobian(x, LogitDifference(), y, 99, score)
    assert seen == [(6, 40, 3, 4, 4), (6, 40, 3, 4, 4), (6, 19, 3, 4, 4)]
    assert torch.equal(again, logits)
    assert torch.equal(chosen, classes.gather(1, at[:, None]))
    torch.testing.assert_close(gradient[:, 0], every[torch.arange(6), at], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "attack",
    [*(DeepFool(norm=NORMS[n]) for n in ("l2", "linf")), *(FMN(norm=NORMS[n]) for n in ("l2", "linf")), DDN()],
    ids=lambda attack: f"{type(attack).__name__}-{attack.norm.name}",
)
def test_in_half_precision_an_attack_reaches_the_images_that_it_reaches_in_float32(network, digits, attack):
    nearest = {}
    for precision in ("float32", "bf16"):
        targets = targets_of(network, digits, 40)
        engine = Engine(victim_of(network, precision), Judge(network, CPU), targets, 16, 0)
        engine.clean_logits()
        judged = engine.judge.forwards
        (outcome,) = engine.run(attack, [Fraction(1)], seed=0)
        nearest[precision] = outcome.distances
        assert (engine.victim.forwards, engine.victim.backwards) == (outcome.forwards, outcome.backwards)
        assert engine.judge.forwards - judged == outcome.judge_forwards
    assert np.isfinite(nearest["float32"]).all()
    assert np.isfinite(nearest["bf16"]).all()
    # 1.03 for DeepFool under L∞ where a CPU emulates bf16, at most 1.02 where it has units for it.
    assert np.median(nearest["bf16"]) <= 1.05 * np.median(nearest["float32"])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_step_of_deepfool_reaches_the_boundary_within_the_box(norm):
    """Eight of nine pixels are at the face that the gradient points to: cut off there, a step is a ninth of its way."""
    x = torch.ones(1, 1, 3, 3)
    x[0, 0, 0, 0] = 0.2
    network = Plane(torch.ones(1, 3, 3), 8.5)
    attack = DeepFool(norm=NORMS[norm], polish=0)
    (outcome,) = engine_of(network, x, torch.zeros(1, dtype=torch.int64)).run(attack, [Fraction(1)], seed=0)
    np.testing.assert_allclose(outcome.distances, [0.3], rtol=1e-3)
    assert outcome.backwards == 2  # at the image, and beyond the boundary


def test_the_first_step_of_ddn_has_the_length_that_is_asked_for():
    with pytest.raises(ValueError, match="step_size must be above 0, not 0"):
        DDN(step_size=0)
