"""Engines on the small network, and targets among the digits."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn

from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim

CPU = torch.device("cpu")
EPS = [Fraction(1, 20), Fraction(1, 10), Fraction(1, 5)]


def plain(network: nn.Module) -> Victim:
    return Victim(frozen_copy(network, CPU), CPU, "float32", "plain")


def targets_of(network: nn.Module, digits, n: int) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """The first n digits that the network has right."""
    x, y = digits
    with torch.no_grad():
        right = (network(x).argmax(1) == y).nonzero().flatten()[:n]
    x, y = x[right], y[right]
    return x, y, Targets(lambda rows: x[rows], y, right)


def attack_all(network, targets, attack, eps=EPS, batch=64, victim=None, **options):
    keep = options.pop("keep", len(targets))
    engine = Engine(
        victim or plain(network), Judge(network, CPU), targets, batch, keep=keep, **options.pop("engine", {})
    )
    return list(engine.run(attack, eps, seed=0, **options)), engine
