"""Several steps of the attacks whose images transfer, against the papers' formulas in an independent loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from epsbench.attacks import MIFGSM
from epsbench.attacks.plain import path
from epsbench.harness.run.noise import KeyedNoise

EPS, STEPS, ALPHA = 0.1, 4, 0.02


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(216, 4)).eval()


def gaussian(side: int) -> Tensor:
    line = torch.exp(-(torch.linspace(-3, 3, side, dtype=torch.float64) ** 2) / 2)
    return (torch.outer(line, line) / line.sum() ** 2).float().expand(3, 1, side, side)


@pytest.mark.parametrize(
    "options",
    [{"vmi": 3}, {"vmi": 2, "si": 3}, {"vmi": 2, "ni": True, "ti": 5, "si": 2}, {"ti": 7}, {"si": 5, "ni": True}],
    ids=str,
)
def test_all_steps_are_those_of_the_papers(options):
    """Neighbours are random, so the loop takes those that were asked about, and looks where they lie."""
    network, x = small_network(), torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    y, asked = network(x).argmax(1), []

    def gradient(at: Tensor) -> Tensor:
        leaf = at.clone().requires_grad_(True)
        return torch.autograd.grad(F.cross_entropy(network(leaf), y, reduction="sum"), leaf)[0]

    def ask(at: Tensor, loss: object, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(at.clone())
        return gradient(at), network(at).detach()

    zero, images = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    attack = MIFGSM(steps=STEPS, relative_step_size=ALPHA / EPS, **options)
    points = list(
        path(attack, ask, x, y, torch.full((3, 1, 1, 1), EPS), zero,
             lambda step: KeyedNoise(0, images, zero if step is None else step + 1), lambda: network(x).detach())
    )  # fmt: skip

    neighbours, scales, ti = options.get("vmi", 0), options.get("si", 1), options.get("ti", 0)
    low, high = (x - EPS).clamp_min(0), (x + EPS).clamp_max(1)
    here, momentum, variance, at = x, torch.zeros_like(x), torch.zeros_like(x), 0
    for step in range(STEPS):
        look = (here + ALPHA * momentum).clamp(low, high) if options.get("ni") and step else here
        torch.testing.assert_close(points[step], look, atol=2e-6, rtol=0)
        near = asked[at : at + neighbours * scales]
        at += len(near) + scales
        shrunk = [2.0 ** -(scales - 1 - number % scales) for number in range(len(near))]
        for each, scale in zip(near, shrunk, strict=True):
            away = (each / scale - look).abs()
            assert 1.2 * EPS < float(away.max()) <= 1.5 * EPS + 1e-5
        mean = sum(scale * gradient(look * scale) for scale in (2.0**-k for k in range(scales))) / scales
        tuned = mean + variance
        if near:
            around = sum(scale * gradient(each) for each, scale in zip(near, shrunk, strict=True)) / len(near)
            variance = around - mean
        if ti:
            tuned = F.conv2d(tuned, gaussian(ti), padding=ti // 2, groups=3)
        momentum = momentum + tuned / tuned.abs().mean((1, 2, 3), keepdim=True)
        here = (here + ALPHA * momentum.sign()).clamp(low, high)
    assert at == len(asked)
    torch.testing.assert_close(points[-1], here, atol=2e-6, rtol=0)
