"""Batch norm folded into the convolution before it computes the same; what cannot be folded stays or is a finding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from epsbench.harness.run.speed.folding import fold_batch_norm
from epsbench.harness.run.speed.prepare import prepare


class Branching(nn.Module):
    """One convolution whose output is used twice, one layer that is called twice, and one batch norm to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.beside = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice, self.after = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.first(x))
        y = self.second(x)
        y = y + self.beside(y)
        return self.after(self.twice(y)) + self.after(self.twice(x))


def test_batch_norm_is_folded_where_nothing_else_sees_the_convolution():
    torch.manual_seed(0)
    model = Branching()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
    model.double().eval()
    folded, x = fold_batch_norm(model), torch.rand(3, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 2
    assert isinstance(model.norm, nn.BatchNorm2d)


def test_a_norm_without_statistics_stays():
    folded = fold_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)).eval())
    assert any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


class MakesLayers(nn.Module):
    """Has a layer in a plain list, and makes others at every call."""

    def __init__(self, listed: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(16, 10)
        self.listed = [listed]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.listed[0](nn.ReLU()(self.norm(self.first(x))))
        return self.last(nn.AdaptiveAvgPool2d(2)(x).flatten(1))


@pytest.mark.parametrize(
    ("listed", "form", "codes"),
    [
        (nn.Sigmoid(), "folded, channels-last", []),
        (nn.Conv2d(4, 4, 1).requires_grad_(False), "channels-last", ["not-folded"]),
    ],
)
def test_a_layer_that_belongs_to_no_module_stops_no_attack(digits, listed, form, codes):
    torch.manual_seed(0)
    model = MakesLayers(listed).eval()
    x, y = (each[:8] for each in digits)
    victim = prepare(model, torch.device("cpu"), "float32", x, y)
    assert (victim.form, [each.code for each in victim.findings]) == (form, codes)
    torch.testing.assert_close(victim(x), model(x), rtol=1e-4, atol=1e-4)
