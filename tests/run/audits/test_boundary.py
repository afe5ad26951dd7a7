"""The audits' attack to the nearest image that fools, against closed forms and against masked gradients."""

from __future__ import annotations

import pytest
import torch
from lookups import RandomDecoyOfNetwork
from torch import Tensor, nn
from zoo import codes, measure

from epsbench.attacks.norms import NORMS
from epsbench.harness.run.attack.judge import Judge, frozen_copy
from epsbench.harness.run.attack.victim import Victim
from epsbench.harness.run.audits.attacked import Attacked
from epsbench.harness.run.audits.boundary import along_boundary
from epsbench.harness.run.audits.reattack import reattack

N, SHAPE = 20, (1, 4, 4)


class Plane(nn.Module):
    """Two classes on either side of a plane in the middle of the box."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1.0, 2.0, 16))

    def forward(self, x: Tensor) -> Tensor:
        score = (x - 0.5).flatten(1) @ self.w
        return torch.stack([score, -score], 1)


def test_images_within_reach_are_fooled_and_others_are_not():
    """The distance to a plane is the margin, divided by the dual norm of w."""
    network = Plane().eval()
    x = 0.5 + 0.1 * torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    distance = (logits[:, 0].abs() / network.w.norm()).detach()
    victim = Victim(frozen_copy(network, x.device), x.device, "float32", "plain")
    eps = float(distance.median())
    fooled = along_boundary(Attacked(victim, 8), Judge(network, x.device), x, logits.argmax(1), NORMS["l2"], eps)
    clear = (distance / eps - 1).abs() > 0.02
    assert fooled[clear].equal(distance[clear] < eps)
    assert (victim.forwards, victim.backwards) == (0, 0)


def test_it_is_tried_under_l2_alone():
    """Under L0 its polish would find what masked gradients hide."""
    x, y = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.zeros(N, dtype=torch.long)
    for name, norm in NORMS.items():
        made = reattack(None, None, x, y, torch.randn(N, 2), norm, 1.0, x)
        assert (made.smallest is not None) == (name == "l2")


@pytest.mark.parametrize(("norm", "eps"), [("l2", 1.5), ("l2", 2.5), ("l0", 10)])
def test_gradients_that_lead_elsewhere_are_still_reported(honest, tmp_path, norm, eps):
    records = measure(RandomDecoyOfNetwork(honest), tmp_path, ['{ name = "pgd", steps = 10 }'], [eps], norm)
    assert "score-search-beats-gradient" in codes(records)
