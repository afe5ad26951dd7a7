"""An engine that runs out of memory goes on with fewer slots and loses no row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engines import CPU, EPS, attack_all, targets_of
from torch import nn

from epsbench.attacks.fgsm import FGSM
from epsbench.attacks.mifgsm import MIFGSM
from epsbench.attacks.noise import Noise
from epsbench.attacks.pgd import PGD
from epsbench.harness.run.attack.engine import Engine
from epsbench.harness.run.attack.judge import Judge
from epsbench.harness.run.attack.victim import Victim


class Stingy(nn.Module):
    """Runs out of memory above a batch size, like a device would."""

    def __init__(self, network: nn.Module, most: int) -> None:
        super().__init__()
        self.network, self.most = network, most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError(f"no room for {len(x)}")
        return self.network(x)


@pytest.mark.parametrize(
    "attack", [PGD(steps=6, random_start=True, restarts=2), FGSM(), Noise(), MIFGSM(steps=4)], ids=repr
)
def test_out_of_memory_halves_the_batch_and_loses_no_row(network, digits, attack):
    _, _, targets = targets_of(network, digits, 100)
    expected, _ = attack_all(network, targets, attack)
    stingy = Victim(Stingy(network, 10), CPU, "float32", "plain")
    engine = Engine(stingy, Judge(Stingy(network, 10), CPU), targets, 64)
    outcomes = list(engine.run(attack, EPS, seed=0))
    for a, b in zip(outcomes, expected, strict=True):
        np.testing.assert_array_equal(a.fooled, b.fooled)
    if isinstance(attack, PGD):
        assert engine.batch <= 10


class StingyOnce(Stingy):
    """Runs out of memory at its fifth large batch: in the middle of a burst, not at its start."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += len(x) > self.most
        if self.calls == 5:
            self.calls += 1
            raise torch.OutOfMemoryError("no room, for once")
        return self.network(x)


@pytest.mark.parametrize("early_stop", [True, False])
def test_rows_parked_in_the_middle_of_a_burst_keep_their_count_of_steps(network, digits, early_stop):
    _, _, targets = targets_of(network, digits, 100)
    attack = PGD(steps=9, random_start=True)
    expected, _ = attack_all(network, targets, attack, early_stop=early_stop)
    victim = Victim(StingyOnce(network, 10), CPU, "float32", "plain")
    actual = list(
        Engine(victim, Judge(network, CPU), targets, 64, poll=8).run(attack, EPS, seed=0, early_stop=early_stop)
    )
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.fooled, b.fooled)
        assert early_stop or a.backwards == 9 * len(targets)


def test_out_of_memory_at_one_row_is_raised(network, digits):
    _, _, targets = targets_of(network, digits, 20)
    engine = Engine(Victim(Stingy(network, 0), CPU, "float32", "plain"), Judge(network, CPU), targets, 8)
    with pytest.raises(torch.OutOfMemoryError):
        list(engine.run(PGD(steps=2), EPS, seed=0))
