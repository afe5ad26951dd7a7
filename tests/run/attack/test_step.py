"""What one step does beside the gradient: projection, and holding back rows that are done."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from epsbench.attacks.norms import NORMS
from epsbench.attacks.norms.linf import LInf
from epsbench.harness.run.attack.step import hold


def images(seed: int, rows: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, 2, 3, 3, generator=generator)
    return x, x + torch.randn(x.shape, generator=generator), torch.rand(rows, 1, 1, 1, generator=generator)


@pytest.mark.parametrize("norm", [NORMS["linf"], NORMS["l2"]], ids=str)  # the others project on ball and box at once
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_an_image_goes_where_its_norm_projects_it_to_the_bit(norm, seed):
    x, x_adv, eps = images(seed)
    x_adv[0, 0, 0, 0] = float("nan")
    before = x_adv.clone()
    expected = (x + norm.project(x_adv - x, eps)).clamp(0, 1)
    torch.testing.assert_close(norm.into_ball(x, x_adv, eps), expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(x_adv, before, rtol=0, atol=0, equal_nan=True)


def test_a_norm_of_ones_own_projects_itself():
    class Halved(LInf):
        def project(self, delta: Tensor, eps: Tensor) -> Tensor:
            return delta.clamp(-eps / 2, eps / 2)

    x, x_adv, eps = images(0)
    assert ((Halved().into_ball(x, x_adv, eps) - x).abs() <= eps / 2 + 1e-6).all()


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from([(), (3,), (1, 2, 2)]))
def test_rows_that_are_done_stay_as_they_were(done, shape):
    rows = torch.tensor(done)
    before, after = torch.zeros(len(rows), *shape), torch.ones(len(rows), *shape)
    kept = hold(rows, before, after)
    assert torch.equal(kept, torch.where(rows.view(-1, *[1] * len(shape)), before, after))
    assert (after == 1).all()
    assert (before == 0).all()
