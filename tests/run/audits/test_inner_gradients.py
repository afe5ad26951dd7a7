"""Models that take gradients inside forward() are named, whatever calls them, and others are not."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.autograd import grad as imported_under_another_name
from zoo import HONEST, codes, measure, probe_of

from epsbench.harness.run.audits.inner_gradients import audit_inner_gradients, backward_passes

CODE = "optimises-at-inference"


class Purified(nn.Module):
    """Moves each image down the gradient of its norm before it classifies it, as optimisation-based purifiers do."""

    def __init__(self, network: nn.Module, how: str) -> None:
        super().__init__()
        self.network, self.how = network, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            z = x if x.requires_grad else x.detach().clone().requires_grad_(True)
            energy = (z**2).sum()
            if self.how == "grad":
                (step,) = torch.autograd.grad(energy, z, create_graph=True)
            elif self.how == "name":
                (step,) = imported_under_another_name(energy, z, create_graph=True)
            elif self.how == "func":
                step = torch.func.grad(lambda at: (at**2).sum())(z)
            else:
                leaf = x.detach().clone().requires_grad_(True)
                (leaf**2).sum().backward()
                step = leaf.grad
        return self.network(x - 0.01 * step)


@pytest.mark.parametrize("how", ["grad", "name", "func", "backward"])
def test_a_model_that_optimises_is_named(how):
    (optimises,) = audit_inner_gradients(probe_of(Purified(HONEST["linear"](), how)))
    assert optimises.code == CODE
    assert optimises.evidence["gradients"] >= 1


def test_others_are_not_and_profilers_are_put_back():
    assert not list(audit_inner_gradients(probe_of(HONEST["linear"]())))
    seen: list[str] = []

    def profiler(frame, event, argument):
        seen.append(event)

    sys.setprofile(profiler)
    try:
        with backward_passes() as passes:
            torch.ones(1, requires_grad=True).sum().backward()
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    assert len(passes) == 1


def test_the_cell_says_so(tmp_path):
    records = measure(Purified(HONEST["linear"](), "grad").eval(), tmp_path, ['"fgsm"'], [0.05])
    assert codes(records) & {CODE}
    assert {record.status for record in records} == {"ok"}
