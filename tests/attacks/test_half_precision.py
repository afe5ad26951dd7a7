"""Smallest distances where half precision sees the class change elsewhere than the judge, on linear networks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from known_distances import CPU, _sparse
from torch import Tensor, nn

from epsbench.attacks.fmn import FMN
from epsbench.attacks.norms import NORMS
from epsbench.attacks.sigma_zero import SigmaZero
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.ledger import Outcome
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

N = 200


def two_classes() -> tuple[nn.Sequential, Tensor, Tensor]:
    """Logits of about 20, of which bf16 drops up to 0.06: it takes clean images near the boundary for fooled."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x = (1.5 * torch.rand(N, 1, 4, 4, generator=generator) - 0.25).clamp(0, 1)
    with torch.no_grad():
        network[1].weight.copy_(0.2 * torch.randn(2, 16, generator=generator))
        network[1].bias.fill_(0)
        network[1].bias.copy_(20 - network(x).median(0).values)
    return network, x, network(x).argmax(1)


def exact_distances(network: nn.Sequential, x: Tensor, y: Tensor, norm: str) -> np.ndarray:
    w, z = network[1].weight.detach().double(), network(x).detach().double()
    exact = torch.zeros(N, dtype=torch.float64)
    for label in (0, 1):
        rows, normal = y == label, w[1 - label] - w[label]
        gap = z[rows, label] - z[rows, 1 - label]
        if norm == "l0":
            exact[rows] = _sparse(normal, gap, x[rows].double())[1].double()
            continue
        room = torch.where(normal > 0, 1 - x[rows].flatten(1).double(), x[rows].flatten(1).double())
        low, high = torch.zeros(len(gap)).double(), torch.ones(len(gap)).double()
        for _ in range(60):  # the least λ with Σ |w| min(λ, room) ≥ gap
            middle = (low + high) / 2
            short = (normal.abs() * room.minimum(middle[:, None])).sum(1) < gap
            low, high = middle.where(short, low), high.where(short, middle)
        exact[rows] = high
    return exact.numpy()


def run(attack: FMN | SigmaZero, precision: str) -> tuple[Outcome, Engine]:
    network, x, y = two_classes()
    victim = Victim(frozen_copy(network, CPU), CPU, precision, "plain")
    engine = Engine(victim, Judge(network, CPU), Targets.of(x, y), 64)
    engine.clean_logits()
    return next(engine.run(attack, [Fraction(1)], seed=0)), engine


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_images_that_half_precision_takes_for_fooled_have_their_distance_all_the_same(precision):
    network, x, y = two_classes()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert (network(x).argmax(1) != y).any()
    for attack in (FMN(norm=NORMS["linf"]), SigmaZero()):
        outcome, engine = run(attack, precision)
        exact = exact_distances(network, x, y, attack.norm.name)
        assert (outcome.distances >= exact * (1 - 1e-4) - 1e-6).all()
        assert (outcome.distances <= 1.05 * exact + 1).all()
        assert np.median(outcome.distances / exact) <= 1.001
        assert (engine.victim.forwards, engine.victim.backwards) == (outcome.forwards, outcome.backwards)


def test_float32_is_not_run_twice_where_no_image_fools():
    network, x, _ = two_classes()
    with torch.no_grad():
        network[1].bias.copy_(torch.tensor([100.0, 0.0]))
    y = torch.zeros(N, dtype=torch.int64)
    taken = {}
    for precision in ("float32", "bf16"):
        victim = Victim(frozen_copy(network, CPU), CPU, precision, "plain")
        engine = Engine(victim, Judge(network, CPU), Targets.of(x, y), 64)
        (outcome,) = engine.run(SigmaZero(steps=5), [Fraction(1)], seed=0)
        assert np.isinf(outcome.distances).all()
        taken[precision] = outcome.backwards
    assert taken == {"float32": 5 * N, "bf16": 2 * 5 * N}
