"""Test images of other classes are adversarial examples: an attack that finds nothing as near is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import epsbench


class Ball(nn.Module):
    """The first class is a ball; outside it, a dozen of the 36 numbers have to change."""

    def __init__(self, center: Tensor) -> None:
        super().__init__()
        self.center = nn.Parameter(center)

    def forward(self, x: Tensor) -> Tensor:
        inside = 0.64 - ((x - self.center) ** 2).flatten(1).sum(1)
        return torch.stack([inside, torch.zeros_like(inside)], 1)


@pytest.mark.parametrize(
    ("attack", "norm", "finds"),
    [
        ("sigma-zero", "l0", False),
        ("sigma-zero:steps=300", "l0", True),
        ("fab:goal=smallest", "l1", False),
        ("fmn", "l1", True),
    ],
)
def test_an_attack_that_ends_nowhere_is_named_where_other_images_are_nearer(attack, norm, finds):
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(3, 3, 4, generator=generator) * 0.6 + 0.2
    near = center + 0.02 * torch.randn(4, 3, 3, 4, generator=generator)
    network, x = Ball(center), torch.cat([torch.rand(10, 3, 3, 4, generator=generator), near])
    y = network(x).argmax(1)
    result = epsbench.evaluate(network, x, y, attack=attack, norm=norm, eps=36, progress=False)
    missed = int(np.isinf(result[0].distances[:10]).sum())
    assert (missed == 0) == finds
    assert [each.evidence for each in result.findings if each.code == "misses-other-images"] == (
        [] if finds else [{"images": missed, "of": 14, "without": missed}]
    )
