"""How many rows of large images a CPU takes a gradient of at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from epsbench.harness.run.attack.targets import Targets
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.speed import batch_size, fitting
from epsbench.harness.run.speed.fitting import rows_that_fit

SIDE = 64


class Stack(nn.Module):
    """Keeps the output of each of three sines, and what the pooling looks at: four features of 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 10)
        self.most = 0

    def forward(self, x):
        if x.requires_grad:
            self.most = max(self.most, len(x))
        x = self.first(x)
        for _ in range(3):
            x = x.sin()
        return self.last(x.square().mean((2, 3)))


KEPT = (3 + 4 * 4) * SIDE * SIDE * 4  # bytes a row: the image, and the input of three sines and of the square
x = torch.rand(300, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_it_is_the_memory_over_what_a_row_keeps(monkeypatch):
    monkeypatch.setattr(fitting, "machine_memory", lambda: fitting.SHARE * 37 * KEPT)
    assert rows_that_fit(Stack(), x[:1]) == pytest.approx(37, abs=3)
    monkeypatch.setattr(fitting, "machine_memory", lambda: KEPT)
    assert rows_that_fit(Stack(), x[:1]) == fitting.FEWEST
    assert rows_that_fit(Stack(), x[:1, :, :32, :32]) is None  # small images are as they were
    assert rows_that_fit(lambda x: 1 / 0, x[:1]) is None
    assert rows_that_fit(lambda x: torch.zeros(len(x), 10), x[:1]) is None


@pytest.mark.parametrize("work", [300, 10**6])
def test_no_batch_is_larger_than_what_fits(monkeypatch, work):
    """A system that runs out of memory ends the process, without an exception to halve the batch at."""
    network = Stack()
    victim = Victim(network, torch.device("cpu"), "float32", "plain")
    targets = Targets(lambda at: x[at], torch.zeros(300, dtype=torch.long), torch.arange(300))
    monkeypatch.setattr(fitting, "machine_memory", lambda: fitting.SHARE * 37 * KEPT)
    assert 30 <= batch_size.find_batch(victim, targets, work) <= 40
    assert 30 <= batch_size.untried(victim, targets) <= 40
    assert network.most <= 40
