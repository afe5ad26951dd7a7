"""Sums of exponentials against torch's own, where terms vanish, and where they are infinite or no numbers."""

from __future__ import annotations

import math

import pytest
import torch

from epsbench.harness.run.generative.logarithms import log_sum_exp


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0, 1e5])
def test_against_torch(dtype, spread):
    values = spread * torch.randn(20, 30, 7, dtype=dtype, generator=torch.Generator().manual_seed(0)) - 300
    kept = values.clone()
    for dim in (0, 1, 2):
        torch.testing.assert_close(log_sum_exp(values, dim), values.logsumexp(dim), rtol=3e-7, atol=3e-7)
    assert torch.equal(values, kept)


def test_infinities_and_nan():
    no, yes, nan = -math.inf, math.inf, math.nan
    values = torch.tensor([[no, no, no], [no, 1.0, no], [yes, 1.0, no], [yes, yes, 0.0], [nan, 1.0, no]])
    torch.testing.assert_close(log_sum_exp(values, 1), values.logsumexp(1), equal_nan=True)
