"""Networks with complex weights, such as layers in Fourier space, train with every optimizer."""

from __future__ import annotations

import copy

import pytest
import torch
from small import run, suite_of
from torch import nn

from epsbench.harness.run.training.averaging import MovingAverage
from epsbench.harness.run.training.recipe import OPTIMIZERS

RECIPE = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01}
SUITE = """
[robustness]
data = "digits"
limit = 200
training = { epochs = 40, learning_rate = 0.05, average = 0.9, clip = 1.0 }
[robustness.matrix]
model = "net.py:Fourier"
attack = "fgsm"
eps = 0.05
"""
NET = """
import torch
from torch import nn

class Fourier(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.filter = nn.Parameter(1 + 0.1 * torch.randn(1, 8, 5, dtype=torch.cfloat))
        self.out = nn.Linear(64, classes)

    def forward(self, x):
        return self.out(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=(8, 8)).flatten(1))
"""


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_complex_weight_moves_as_its_real_and_imaginary_part_do(name):
    values = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    apart, joined = nn.Parameter(values.clone()), nn.Parameter(torch.view_as_complex(values.clone()))
    optimizers = [OPTIMIZERS[name]([weight], RECIPE) for weight in (apart, joined)]
    for _ in range(3):
        apart.square().sum().backward()
        joined.abs().square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(torch.view_as_real(joined.detach()), apart.detach())
    assert [optimizer.defaults["fused"] for optimizer in optimizers] == [True, False]


def test_complex_weights_are_averaged_and_not_copied():
    network = nn.Linear(3, 2, dtype=torch.cfloat)
    first = copy.deepcopy(network.weight.detach())
    average = MovingAverage(network, 0.6)
    with torch.no_grad():
        network.weight.add_(1j)
    average.update(network)
    decay = 2 / 11
    torch.testing.assert_close(average.network.weight, decay * first + (1 - decay) * (first + 1j))


def test_a_model_with_complex_weights_is_trained_kept_and_attacked(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    suite = suite_of(tmp_path, SUITE)
    failures, records = run(suite, tmp_path / "out")
    (record,) = records.values()
    assert (failures, record.status) == (0, "ok")
    assert record.metrics["clean_accuracy"].value > 0.5
